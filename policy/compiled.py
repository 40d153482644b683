"""Rules of one subject → rows of its map. Pure.

The rows of an identity follow from the parts of rules it is a peer of, and from the rows of
anybody. So identities with the same parts share one template, and a new identity costs its own
rows. What a broader row says already is left out; when that row goes, all is computed anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from model.policy_map import ANY_IDENTITY, Direction, PolicyEntry, PolicyKey
from policy.ports import EVERYTHING, Block

Rows = dict[PolicyKey, PolicyEntry]


class Effect(IntEnum):
    """What a part of a rule does; the greater wins where two are about the same packet.

    ``BASE`` is the default deny of rules in audit: it passes and is reported, and any rule that
    says something else comes before it.
    """

    BASE = 0
    ALLOW = 1
    AUDIT = 2
    DENY = 3

    def entry(self, rule: int) -> PolicyEntry:
        """The row's value."""
        return PolicyEntry(self >= Effect.AUDIT, self in (Effect.BASE, Effect.AUDIT), rule)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one rule says about some blocks, in one direction; ``rule`` is its number.

    Compared by being the same: tuples of parts are looked up for every identity.
    """

    direction: Direction
    effect: Effect
    blocks: tuple[Block, ...]
    rule: int = 0


Said = dict[Block, tuple[Effect, int]]  # block -> what holds there, and by which rule
Entries = list[tuple[Block, PolicyEntry]]
LOCALHOST = Part(Direction.INGRESS, Effect.ALLOW, (EVERYTHING,))


def _say(said: Said, block: Block, effect: Effect, rule: int) -> None:
    known = said.get(block)
    if known is None or (effect, -rule) > (known[0], -known[1]):
        said[block] = (effect, rule)


def _gather(parts: Iterable[Part]) -> Said:
    said: Said = {}
    for part in parts:
        for block in part.blocks:
            _say(said, block, part.effect, part.rule)
    return said


def _narrow_audits(parts: Iterable[Part], others: Iterable[Part]) -> Said:
    """All that is said, with denies in audit only where something is allowed.

    Where nothing is, default deny drops the packet in earnest. ``others`` are about anybody.
    """
    parts, others = list(parts), list(others)
    said = _gather(p for p in parts if p.effect is not Effect.AUDIT)
    for audits, allows in ((parts, [*parts, *others]), (others, parts)):
        allowed = {b for p in allows if p.effect is Effect.ALLOW for b in p.blocks}
        for audit in (p for p in audits if p.effect is Effect.AUDIT):
            for block in audit.blocks:
                for allow in allowed:
                    if block.covers(allow) or allow.covers(block):
                        narrow = max(block, allow, key=lambda b: b.bits)
                        _say(said, narrow, Effect.AUDIT, audit.rule)
    return said


def _uncovered(said: Said, anybody: Said | None) -> Said:
    """Without what a broader block says already; ``anybody`` None: ``said`` is about anybody."""
    levels = sorted({block.bits for block in said})
    above = sorted({block.bits for block in anybody}) if anybody else ()
    kept: Said = {}
    for block, (effect, rule) in said.items():
        around = [block.at(bits) for bits in levels if bits < block.bits]
        if any(said[b][0] >= effect for b in around if b in said):
            continue
        if anybody:
            around = [block.at(bits) for bits in above if bits <= block.bits]
            if any(anybody[b][0] >= effect for b in around if b in anybody):
                continue
        kept[block] = (effect, rule)
    return kept


def _source(anybody: Iterable[Part], base: Part | None) -> tuple[object, ...]:
    # Parts are the same as long as their rules are; a base is made every time.
    return (*anybody, None if base is None else (base.effect, base.rule))


class Compiled:
    """The rows of one subject in one direction, identity by identity.

    ``shut`` says that default deny holds; otherwise ``base`` is what holds where no part speaks.
    """

    def __init__(self, way: Direction, anybody: Sequence[Part], base: Part | None) -> None:
        self._way = way
        self._shut = base is None
        self._source = _source(anybody, base)
        self._anybody = list(anybody) + ([base] if base else [])
        self._all = self._say_of(self._anybody, ())
        self._templates: dict[tuple[Part, ...], Entries] = {}

    @property
    def shut(self) -> bool:
        """Whether default deny holds."""
        return self._shut

    @property
    def parts(self) -> Sequence[Part]:
        """What is said about anybody."""
        return self._anybody

    def follows_from(self, anybody: Sequence[Part], base: Part | None) -> bool:
        """Whether this is what these say about anybody."""
        return self._source == _source(anybody, base)

    def forget_templates(self) -> None:
        """Parts of rules have come or gone: combinations of them do not come again."""
        self._templates.clear()

    def _say_of(self, parts: Iterable[Part], others: Iterable[Part]) -> Said:
        return _narrow_audits(parts, others) if self._shut else _gather(parts)

    def anybody(self) -> Rows:
        """The rows of identity 0."""
        return self._rows(ANY_IDENTITY, _entries(_uncovered(self._all, None)))

    def of(self, identity: int, parts: tuple[Part, ...]) -> Rows:
        """The rows of one identity that is a peer of these parts."""
        found = self._templates.get(parts)
        if found is None:
            found = _entries(_uncovered(self._say_of(parts, self._anybody), self._all))
            self._templates[parts] = found
        return self._rows(identity, found)

    def _rows(self, identity: int, entries: Entries) -> Rows:
        way = self._way
        return {PolicyKey(identity, way, *block): entry for block, entry in entries}


def _entries(said: Said) -> Entries:
    return [(block, effect.entry(rule)) for block, (effect, rule) in said.items()]


def closed_rows() -> Rows:
    """Nothing passes, either way."""
    return {PolicyKey(ANY_IDENTITY, way): Effect.DENY.entry(0) for way in Direction}
