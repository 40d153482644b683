"""Rules of prefixes and the addresses of the mesh: `policy-cidr-match-mode`. Pure.

A pod or node keeps the identity of its labels. Beside it the programs ask what rules say of its
address: by the longest prefix around it that a rule names, whose number has rows of its own
(docs/adr/0247).
"""

from collections.abc import Callable, Mapping, Set

from model.address import Prefix
from policy.selectors import inner_labels
from policy.table import PolicyTable
from policy.wanted import inner


class CidrRules:
    """Prefix -> its number for the mesh's addresses, as the programs may have it.

    ``former`` are the numbers of a former life, which the kernel still has: they stay until the
    first rows are written.
    """

    def __init__(self, table: PolicyTable, former: Mapping[Prefix, int]) -> None:
        self._table = table
        self._asked = bool(table.options.cidr_modes)
        self.rows = {p: inner(n) for p, n in former.items()} if self._asked else {}
        self.on_prefix: Callable[[Prefix], None] = lambda prefix: None

    def numbers(self, number: int) -> tuple[int, ...]:
        """All that rows may be of, for a prefix of this number."""
        return (number, inner(number)) if self._asked else (number,)

    def named(self, prefix: Prefix, number: int) -> None:
        """A rule names a prefix: rows are to be computed for it."""
        if self._asked:
            self._table.put_identity(inner(number), inner_labels(prefix))

    def written(self, prefixes: Mapping[Prefix, int]) -> None:
        """The rows of these are in the kernel."""
        for prefix, number in prefixes.items() if self._asked else ():
            self.rows[prefix] = inner(number)
            self.on_prefix(prefix)

    def keep(self, prefixes: Set[Prefix]) -> None:
        """No rule names others any more."""
        for prefix in self.rows.keys() - prefixes:
            del self.rows[prefix]
            self.on_prefix(prefix)
