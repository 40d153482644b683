"""Which rows of an earlier run belong to objects that cannot be read just now. Pure.

The rows of an object that turned bad while we ran stay as they were. After a restart nobody knows
what they were but the store.
"""

from collections.abc import Callable, Iterable

import msgspec

from wire.etcd import keys

Subject = tuple[str, str, str]  # kind, namespace, name


class _Owner(msgspec.Struct):
    K8sNamespace: str = ""
    K8sPodName: str = ""


class Spared:
    """``unusable``: every object that cannot be read now."""

    def __init__(self, unusable: Callable[[], Iterable[Subject]]) -> None:
        self._unusable = unusable

    def __call__(self, key: str, value: bytes) -> bool:
        """Whether a row is the last good one of an object that cannot be read."""
        subject = owner_of(key, value)
        return subject is not None and subject in set(self._unusable())


def owner_of(key: str, value: bytes) -> Subject | None:
    """The object that a row of ours was made of; an address tells it in its value."""
    kind, _, rest = key.removeprefix(keys.STATE_PREFIX).partition("/v1/")
    match kind:
        case keys.NODES:
            return "CiliumNode", "", rest.partition("/")[2]
        case keys.IDENTITIES:
            return "CiliumIdentity", "", rest.removeprefix("id/")
        case keys.SERVICES:
            namespace, _, name = rest.partition("/")[2].partition("/")
            return "Service", namespace, name
        case keys.IP:
            try:
                owner = msgspec.json.decode(value, type=_Owner)
            except msgspec.MsgspecError:
                return None
            return "CiliumEndpoint", owner.K8sNamespace, owner.K8sPodName
        case _:
            return None
