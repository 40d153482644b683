"""Changes of rules that name new prefixes wait until addresses are known by these. Pure.

A deny of 10.0.0.0/8 that becomes one of 10.1.0.0/16: were its rows exchanged first, the addresses
of the latter would for a moment be those of the former, which nothing denies any more. So the new
prefix first has rows by the old rules, then it is in the ipcache, and then the rules change
(docs/adr/0248).
"""

from collections.abc import Callable, Hashable, Iterable, Set
from dataclasses import replace
from functools import partial

from model.address import Prefix
from policy.known import CidrGroup, Known, PolicyService
from policy.rules import PolicyRule
from policy.table import PolicyTable
from policy.wanted import prefixes_of

ROUNDS = 3  # then rules come all the same: rows that fail keep nobody else's back


class StagedRules:
    """Takes what a ``PolicyTable`` takes of objects, and hands it on when it may.

    Until ``holds`` is set, that is at once.
    """

    def __init__(self, table: PolicyTable) -> None:
        self._table = table
        self._waiting: list[Callable[[], None]] = []
        self._prefixes: set[Prefix] = set()  # that what waits names
        self._rounds = 0
        self.holds = False

    @property
    def known(self) -> Known:
        """What the table knows beside rules."""
        return self._table.known

    def put_object(self, key: Hashable, rules: Iterable[PolicyRule]) -> None:
        """As the table's."""
        rules = tuple(rules)
        self._add(partial(self._table.put_object, key, rules), self.known, rules)

    def drop_object(self, key: Hashable) -> None:
        """As the table's."""
        self.put_object(key, ())

    def put_group(self, name: str, group: CidrGroup | None) -> None:
        """As the table's."""
        if not self._waiting and self.known.groups.get(name) == group:
            return
        more = {name: group} if group is not None else {}
        known = replace(self.known, groups=self.known.groups | more)
        self._add(partial(self._table.put_group, name, group), known, self._table.rules())

    def put_service(self, namespace: str, name: str, service: PolicyService | None) -> None:
        """As the table's."""
        if not self._waiting and self.known.services.get((namespace, name)) == service:
            return
        more = {(namespace, name): service} if service is not None else {}
        known = replace(self.known, services=self.known.services | more)
        put = partial(self._table.put_service, namespace, name, service)
        self._add(put, known, self._table.rules() if service and service.addresses else ())

    def put_port_name(self, name: str, protocol: int, numbers: Iterable[int]) -> None:
        """As the table's."""
        self._add(partial(self._table.put_port_name, name, protocol, set(numbers)), self.known, ())

    def _add(self, put: Callable[[], None], known: Known, rules: Iterable[PolicyRule]) -> None:
        if not self.holds:
            put()
            return
        self._waiting.append(put)
        self._prefixes |= prefixes_of(known, rules)

    @property
    def waiting(self) -> bool:
        """Whether something is not in the table yet."""
        return bool(self._waiting)

    def prefixes(self) -> Set[Prefix]:
        """What is to be in the ipcache first."""
        return self._prefixes

    def hand_on(self, missing: Callable[[Prefix], bool]) -> bool:
        """All of it, if nothing it names is missing in the ipcache; once a round.

        Whether there was something to hand on.
        """
        self._rounds += 1
        if self._rounds < ROUNDS and any(missing(prefix) for prefix in self._prefixes):
            return False
        self._rounds = 0
        waiting, self._waiting, self._prefixes = self._waiting, [], set()
        for put in waiting:
            put()
        return bool(waiting)
