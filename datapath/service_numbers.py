"""Numbers of backends and frontends. Pure.

Numbers live as long as what they stand for, because conntrack entries carry them: an unchanged
backend keeps its number, and a number is not given again while a flow may remember it.
"""

import errno
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from model.address import Address
from model.cluster import ClusterId
from model.service import Backend, Frontend, Protocol

LAST_REVNAT_ID = 0xFFFF  # what conntrack has room for


@dataclass(frozen=True, slots=True)
class BackendKey:
    """What makes two backends the same one."""

    address: Address
    port: int
    protocol: Protocol
    cluster_id: ClusterId


@dataclass
class Numbers:
    """Who has which number, and who uses it."""

    frontends: dict[Frontend, int] = field(default_factory=dict)  # reverse NAT numbers
    _taken: dict[int, Frontend] = field(default_factory=dict)
    _backends: dict[BackendKey, int] = field(default_factory=dict)
    _keys: dict[int, BackendKey] = field(default_factory=dict)
    _users: dict[int, set[Frontend]] = field(default_factory=dict)
    _next_backend: int = 1
    _next_revnat: int = 1
    _remembered: frozenset[int] = frozenset()  # reverse NAT numbers that flows may still carry

    def load(
        self,
        backends: Mapping[int, BackendKey],
        frontends: Mapping[Frontend, int],
        users: Mapping[Frontend, Iterable[int]],
        remembered_backends: Collection[int],
        remembered_revnats: Collection[int],
    ) -> None:
        """Begin anew. ``remembered_*``: numbers that live flows carry."""
        self._remembered = frozenset(remembered_revnats) | self._remembered
        self._backends = {key: number for number, key in backends.items()}
        self._keys = {number: key for key, number in self._backends.items()}
        self._users = {number: set() for number in backends}
        for frontend, numbers in users.items():
            for number in numbers:
                self._users.setdefault(number, set()).add(frontend)
        self.frontends = dict(frontends)
        self._taken = {number: frontend for frontend, number in frontends.items()}
        highest = max((*backends, *remembered_backends, self._next_backend - 1))
        self._next_backend = highest + 1
        self._next_revnat = max((*self._taken, self._next_revnat - 1)) + 1

    def frontend(self, frontend: Frontend) -> int:
        """The number of a frontend, given on first use. ``OSError(ENOSPC)`` when all are taken."""
        number = self.frontends.get(frontend)
        if number is not None:
            return number
        # First without those that a flow may remember, then, if need be, with them.
        for avoided in (self._remembered, frozenset[int]()):
            for step in range(LAST_REVNAT_ID):
                number = (self._next_revnat - 1 + step) % LAST_REVNAT_ID + 1
                if number not in self._taken and number not in avoided:
                    self._next_revnat = number + 1
                    self.frontends[frontend] = number
                    self._taken[number] = frontend
                    return number
        raise OSError(
            errno.ENOSPC, f"more than {LAST_REVNAT_ID} service ports on one node: remove services"
        )

    def frontend_of(self, number: int) -> Frontend | None:
        """Who has a reverse NAT number."""
        return self._taken.get(number)

    def release_frontend(self, frontend: Frontend) -> int | None:
        """Its number, which is free from now on."""
        number = self.frontends.pop(frontend, None)
        self._taken.pop(number or 0, None)
        return number

    def backend(self, backend: Backend) -> int:
        """The number of a backend, given on first use and never again."""
        key = BackendKey(backend.address, backend.port, backend.protocol, backend.cluster_id)
        number = self._backends.get(key)
        if number is None:
            number = self._backends[key] = self._next_backend
            self._keys[number] = key
            self._next_backend += 1
        return number

    def users(self, number: int) -> Collection[Frontend]:
        """Frontends that lead to a backend."""
        return self._users.get(number, ())

    def use(self, frontend: Frontend, numbers: Iterable[int]) -> None:
        """A frontend leads to these backends, too."""
        for number in numbers:
            self._users.setdefault(number, set()).add(frontend)

    def leave(self, frontend: Frontend, numbers: Iterable[int]) -> list[int]:
        """A frontend does not lead to these any more. Those that nobody uses now."""
        freed = []
        for number in numbers:
            users = self._users.get(number)
            if users is not None:
                users.discard(frontend)
                if not users:
                    self._forget(number)
                    freed.append(number)
        return freed

    def drop_unused(self) -> list[int]:
        """Backends that an interrupted write left without a frontend; costs a walk."""
        unused = [number for number, users in self._users.items() if not users]
        for number in unused:
            self._forget(number)
        return unused

    def _forget(self, number: int) -> None:
        del self._users[number]
        key = self._keys.pop(number, None)
        if key is not None and self._backends.get(key) == number:
            del self._backends[key]
