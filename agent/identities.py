"""Which number stands for a pod's labels. Adapter: creates CiliumIdentity objects.

An object with equal labels is used again, the oldest where there are several; else one is created
under a number that the labels themselves choose. Two agents that meet the same new labels at once
therefore ask for the same name: the API server lets one of them make it, and the other reads it and
uses it. A number that other labels have taken is passed over for the next.
"""

import asyncio
import logging
from hashlib import sha256

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

    def __init__(self, client: Client, numbers: IdentityRange) -> None:
        self._client = client
        self.numbers = numbers
        self._by_labels: dict[str, dict[NumericIdentity, str]] = {}  # number → creation time
        self._taken: set[int] = set()
        self._making: dict[str, asyncio.Event] = {}  # labels an object is being made for

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
        born = self._by_labels.get(labels.text(), {})
        ours = [number for number in born if number in self.numbers]
        if not ours:
            return None
        return Identity(min(ours, key=lambda number: (born[number], number)), labels)

    async def resolve(self, labels: Labels) -> Identity:
        """The identity of these labels; made when there is none. Raises ``OSError``."""
        text = labels.text()
        while (found := self.known(labels)) is None:
            making = self._making.get(text)
            if making is not None:  # another pod with the same labels was first
                await making.wait()
                continue
            done = self._making[text] = asyncio.Event()
            try:
                await self._make(labels)
            finally:
                del self._making[text]
                done.set()
        return found

    async def _make(self, labels: Labels) -> None:
        for _ in range(_TRIES):
            identity = Identity(self._free_number(labels), labels)
            self._taken.add(identity.id)
            try:
                made = await self._client.create(CILIUM_IDENTITIES, encode_identity(identity))
            except ApiError as error:
                if not error.already_exists:
                    self._taken.discard(identity.id)
                    raise
                await self._learn(identity.id)
                if self.known(labels) is not None:
                    return
                continue
            except OSError:
                self._taken.discard(identity.id)
                raise
            self.observe(None, made)
            log.info('event=identity-created id=%d labels="%s"', identity.id, labels.text())
            return
        raise OSError(
            f"no free identity in {self.numbers.first} to {self.numbers.last} after {_TRIES} "
            "tries: delete unused CiliumIdentity objects"
        )

    async def _learn(self, number: NumericIdentity) -> None:
        """Read what somebody else made under a number. One that is gone again is free."""
        try:
            made = await self._client.get(CILIUM_IDENTITIES, str(number))
            self.observe(None, made)
        except ApiError as error:
            if not error.not_found:
                raise
            self._taken.discard(number)
        except ValueError:
            pass  # unusable, and reported where it is watched; the number stays taken

    def _free_number(self, labels: Labels) -> NumericIdentity:
        size = self.numbers.last - self.numbers.first + 1
        start = int.from_bytes(sha256(labels.text().encode()).digest()[:8]) % size
        for step in range(size):
            number = self.numbers.first + (start + step) % size
            if number not in self._taken:
                return NumericIdentity(number)
        raise OSError(
            f"all identities from {self.numbers.first} to {self.numbers.last} are taken: "
            "delete unused CiliumIdentity objects"
        )
