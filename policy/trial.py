"""Objects tried out on what a node knows: its computation before and after they come or go. Pure.

Only endpoints whose rules change are computed, and once: the objects come on top of what is there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from model.labels import Labels
from policy.facts import EndpointFact, Facts
from policy.known import CidrGroup, Known
from policy.objects.read import Kind, Reading, Source, read
from policy.objects.settings import Settings
from policy.oracle import applies
from policy.rules import CidrGroupPeer, PolicyRule
from policy.selectors import cidr_labels, inner_labels, prefix_of
from policy.table import PolicyTable
from policy.wanted import LAST, inner, prefixes_of
from policy.whatif import Computed, computed, points

ObjectKey = tuple[Kind, str, str]  # kind, namespace, name
Rules = dict[ObjectKey, tuple[PolicyRule, ...]]
Reader = Callable[[Source, Settings], Reading]


def key_of(source: Source) -> ObjectKey:
    """What names an object."""
    return source.kind, source.namespace, source.name


class Readings:
    """Sources as they are read; what several nodes tell alike is read once."""

    def __init__(self) -> None:
        self._known: dict[ObjectKey, tuple[Source, Settings, Reading]] = {}

    def __call__(self, source: Source, settings: Settings) -> Reading:
        """As ``read``."""
        known = self._known.get(key_of(source))
        if known is None or known[:2] != (source, settings):
            known = source, settings, read(source, settings)
            self._known[key_of(source)] = known
        return known[2]


@dataclass(frozen=True, slots=True)
class Change:
    """Objects that come, or become something else (``puts``), and those that go."""

    puts: tuple[Source, ...] = ()
    drops: tuple[ObjectKey, ...] = ()
    groups: Mapping[str, CidrGroup | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """Of the endpoints that the change is about. ``asked``: the (protocol, port) to compare at.

    ``identities`` are the node's, and numbers for prefixes that only new rules name.
    """

    before: Computed
    after: Computed
    identities: Mapping[int, Labels]
    asked: Mapping[str, set[tuple[int, int]]]


def try_out(node: Facts, change: Change, reader: Reader = read) -> Trial:
    """What a node would compute."""
    old: Rules = {key_of(s): reader(s, node.settings).rules for s in node.sources}
    new = {key: rules for key, rules in old.items() if key not in change.drops}
    new |= {key_of(s): reader(s, node.settings).rules for s in change.puts}
    groups = {**node.known.groups, **change.groups}
    known = replace(node.known, groups={n: g for n, g in groups.items() if g is not None})
    touched = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    places = _affected(node, known, old, new, touched)
    identities = dict(node.identities)
    wanted = prefixes_of(node.known, _all(old)) | prefixes_of(known, _all(new))
    wanted -= {prefix_of(labels) for labels in node.identities.values()}
    for number, prefix in enumerate(sorted(wanted)):
        identities[LAST - number] = cidr_labels(prefix)
        if node.options.cidr_modes:
            identities[inner(LAST - number)] = inner_labels(prefix)
    table = _table(node, identities, old, places)
    before = computed(table)
    asked = {place.name: _points(table, known, place) for place in places}
    for key in touched:
        table.put_object(key, new.get(key, ()))
    for name, group in change.groups.items():
        table.put_group(name, group)
    table.compute()
    for place in places:
        asked[place.name] |= _points(table, known, place)
    return Trial(before, computed(table), identities, asked)


def _all(rules: Rules) -> Iterable[PolicyRule]:
    return (rule for found in rules.values() for rule in found)


def _affected(
    node: Facts, known: Known, old: Rules, new: Rules, touched: list[ObjectKey]
) -> list[EndpointFact]:
    """The endpoints whose rules change, or what these name."""
    changed = [rule for key in touched for rules in (old, new) for rule in rules.get(key, ())]
    if known.groups != node.known.groups:
        changed += [rule for rule in _all(new) if _names_groups(rule)]
    return [e for e in node.endpoints.values() if any(applies(r, e.subject) for r in changed)]


def _names_groups(rule: PolicyRule) -> bool:
    return any(isinstance(p, CidrGroupPeer) for part in rule.rules for p in part.peers or ())


def _table(
    node: Facts, identities: Mapping[int, Labels], rules: Rules, places: list[EndpointFact]
) -> PolicyTable:
    table = PolicyTable(node.options)
    table.known = replace(node.known, groups=dict(node.known.groups))
    if places:
        table.put_identities(identities)
    for key, found in rules.items():
        table.put_object(key, found)
    for place in places:
        table.put_endpoint(place.name, place.subject)
    table.compute()
    return table


def _points(table: PolicyTable, known: Known, place: EndpointFact) -> set[tuple[int, int]]:
    """Where the rules of an endpoint may say something else; names of ports by their numbers."""
    named = {key: set(numbers) for key, numbers in known.pod_ports.items()}
    for name, protocol, port in place.subject.ports:
        named.setdefault((name.lower(), protocol), set()).add(port)
    return points(table.rules_of(place.name), named)
