"""Which number stands for a pod's labels. Adapter: creates CiliumIdentity objects.

An object with equal labels is used again, the oldest where there are several; else one is created
under a random free number of this cluster's range. The API server refuses a name twice, so a
number that another agent took in the meantime shows as a refusal, and the next one is tried.
"""

import logging
from collections.abc import Callable

from kube.port import ApiError, Client
from kube.resources import CILIUM_IDENTITIES
from model.cluster import FIRST_ALLOCATABLE, ClusterId, IdentityRange, identity_range
from model.identity import Identity, NumericIdentity, ReservedIdentity
from model.labels import SOURCE_RESERVED, Label, Labels
from wire.k8s.cilium_identity import CiliumIdentity, decode_identity, encode_identity

log = logging.getLogger("isthmus.agent.identities")

INIT = Identity(
    NumericIdentity(ReservedIdentity.INIT), Labels.of([Label("init", "", SOURCE_RESERVED)])
)
_TRIES = 64  # the range would have to be nearly full for so many collisions in a row


def allocatable(cluster: ClusterId, max_connected: int) -> IdentityRange:
    """The numbers this cluster may give out: its range without the reserved start."""
    whole = identity_range(cluster, max_connected)
    first = whole.first + FIRST_ALLOCATABLE if cluster else whole.first
    return IdentityRange(first, whole.last)


class IdentityAllocator:
    """Numbers by labels; fed by the informer of CiliumIdentity objects."""

    def __init__(self, client: Client, numbers: IdentityRange, draw: Callable[[], float]) -> None:
        self._client = client
        self.numbers = numbers
        self._draw = draw
        self._by_labels: dict[str, dict[NumericIdentity, str]] = {}  # number → creation time
        self._taken: set[int] = set()

    def observe(self, old: CiliumIdentity | None, new: CiliumIdentity | None) -> None:
        """Take a change of an object. Raises ``ObjectError`` for one that is unusable."""
        if old is not None:
            self._forget(old)
        if new is not None:
            identity = decode_identity(new)
            born = new.metadata.creation_timestamp or ""
            self._by_labels.setdefault(identity.labels.text(), {})[identity.id] = born
            self._taken.add(identity.id)

    def _forget(self, old: CiliumIdentity) -> None:
        try:
            identity = decode_identity(old)
        except ValueError:
            return
        self._taken.discard(identity.id)
        text = identity.labels.text()
        numbers = self._by_labels.get(text, {})
        numbers.pop(identity.id, None)
        if not numbers:
            self._by_labels.pop(text, None)

    def known(self, labels: Labels) -> Identity | None:
        """The identity that exists for these labels."""
        numbers = self._by_labels.get(labels.text())
        if not numbers:
            return None
        number = min(numbers, key=lambda n: (numbers[n], n))
        return Identity(number, labels) if number in self.numbers else None

    async def resolve(self, labels: Labels) -> Identity:
        """The identity of these labels; made when there is none. Raises ``OSError``."""
        for _ in range(_TRIES):
            found = self.known(labels)
            if found is not None:
                return found
            identity = Identity(self._free_number(), labels)
            self._taken.add(identity.id)
            try:
                made = await self._client.create(CILIUM_IDENTITIES, encode_identity(identity))
            except ApiError as error:
                if not error.already_exists:
                    self._taken.discard(identity.id)
                    raise
                continue  # the number stays marked: somebody has it
            except OSError:
                self._taken.discard(identity.id)
                raise
            self.observe(None, made)
            log.info('event=identity-created id=%d labels="%s"', identity.id, labels.text())
        raise OSError(
            f"no free identity in {self.numbers.first} to {self.numbers.last} after {_TRIES} "
            "tries: delete unused CiliumIdentity objects"
        )

    def _free_number(self) -> NumericIdentity:
        size = self.numbers.last - self.numbers.first + 1
        start = int(self._draw() * size)
        for step in range(size):
            number = self.numbers.first + (start + step) % size
            if number not in self._taken:
                return NumericIdentity(number)
        raise OSError(
            f"all identities from {self.numbers.first} to {self.numbers.last} are taken: "
            "delete unused CiliumIdentity objects"
        )
