"""Differences between two computations are those that the oracle sees, and no others."""

import itertools

import pytest

from model.address import parse_prefix
from model.policy_map import Direction
from policy.facts import EndpointFact, Facts, from_json, to_json
from policy.known import CidrGroup
from policy.objects.read import Source
from policy.objects.settings import Settings
from policy.oracle import Packet, Verdict, verdict
from policy.selectors import prefix_of
from policy.trial import Change, Readings, Trial, key_of, try_out
from policy.whatif import OTHERS, Difference, compare, points
from tests.support.policy_engine import Engine, cnp
from tests.support.policy_world import PEERS
from tests.support.random_policies import Writer


def facts_of(engine: Engine, objects: list[Source]) -> Facts:
    """The engine's node with these objects, told as an agent tells it."""
    subject = engine.table.subject("e")
    assert subject is not None
    return Facts(
        "node",
        engine.options,
        engine.settings,
        tuple(objects),
        engine.known,
        dict(engine.table.identities()),
        {1: EndpointFact("default", "web", 1, subject)},
    )


def from_to(old: list[Source], new: list[Source]) -> Change:
    """All of ``old`` goes but what has a name of ``new``."""
    kept = {key_of(source) for source in new}
    return Change(tuple(new), tuple(key_of(s) for s in old if key_of(s) not in kept))


def differences(trial: Trial) -> list[Difference]:
    return [
        found
        for name, ports in trial.asked.items()
        for found in compare(trial.before, trial.after, trial.identities, name, ports)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_told_is_all_that_decides(seed: int) -> None:
    """A world that went over the wire computes the same rows."""
    objects = Writer(seed).objects()
    engine = Engine(objects)
    told = from_json(to_json(facts_of(engine, objects)))
    assert told == facts_of(engine, objects)
    assert told.table().rows("default/web") == engine.table.rows("e")


@pytest.mark.parametrize("seed", range(8))
def test_differences_are_the_oracles(seed: int) -> None:
    """For every identity, direction and port: told if and only if the verdicts differ."""
    old, new = Writer(seed).objects(), Writer(seed + 1000).objects()
    both = Engine([*old, *new])  # so that prefixes of either have identities
    before, after = facts_of(both, old), facts_of(both, new)
    ports = points([*before.rules(), *after.rules()], {("http", 6): {8080}})
    trial = try_out(before, from_to(old, new))
    told = {}
    for found in differences(trial):
        for peer in found.peers:
            told[found.direction, peer, found.protocol, found.port] = (found.before, found.after)
    subject = before.endpoints[1].subject
    rules = before.rules(), after.rules()
    for way, (number, labels), (protocol, port) in itertools.product(
        Direction, before.identities.items(), ports | set(OTHERS.items())
    ):
        packet = Packet(number, labels, protocol, port)
        was, will = (
            verdict(before.known, some, subject, way, packet, before.options).verdict
            for some in rules
        )
        wanted = None if was is will else (was, will)
        if (protocol, port) not in trial.asked.get("default/web", ports) | set(OTHERS.items()):
            continue
        assert told.get((way, number, protocol, port)) == wanted


def test_who_decides_is_named() -> None:
    """A new policy shuts all but its client; identities that are alike are told together."""
    client = {"fromEndpoints": [{"matchLabels": {"app": "client"}}]}
    spec = {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [client]}
    object_ = cnp(spec, "only-client")
    empty = facts_of(engine := Engine([]), [])
    shut = differences(try_out(empty, Change((object_,))))
    (found,) = {d.peers: d for d in shut if d.protocol == 6}.values()
    assert (found.before, found.after) == (Verdict.ALLOWED, Verdict.DROPPED)
    assert len(found.peers) > len(PEERS) / 2
    assert not {engine.numbers[name] for name in "CRH"} & set(found.peers)
    opened = differences(try_out(facts_of(engine, [object_]), Change(drops=(key_of(object_),))))
    (back,) = {d.rule_before for d in opened if d.protocol == 6}
    assert back is None  # default deny, by no rule


TO_GROUP = {
    "endpointSelector": {"matchLabels": {"app": "web"}},
    "egress": [{"toCIDRSet": [{"cidrGroupRef": "g", "except": ["192.0.2.3/32"]}]}],
}


def test_a_group_changes_what_policies_mean() -> None:
    """Addresses that come into a group, or go with it; nobody asks where no rule names a group."""
    node = facts_of(Engine([cnp(TO_GROUP)], groups={"g": ["10.0.0.0/8"]}), [cnp(TO_GROUP)])
    more = CidrGroup((parse_prefix("10.0.0.0/8"), parse_prefix("192.0.2.0/24")))

    def turned(groups: dict[str, CidrGroup | None]) -> dict[str, set[tuple[Verdict, Verdict]]]:
        trial = try_out(node, Change(groups=groups))
        found: dict[str, set[tuple[Verdict, Verdict]]] = {}
        for told in differences(trial):
            for number in told.peers:
                prefix = prefix_of(trial.identities[number])
                found.setdefault(str(prefix), set()).add((told.before, told.after))
        return found

    opened, shut = (Verdict.DROPPED, Verdict.ALLOWED), (Verdict.ALLOWED, Verdict.DROPPED)
    assert turned({"g": more}) == {"192.0.2.0/24": {opened}}
    assert turned({"g": None}) == {"10.0.0.0/8": {shut}}
    assert turned({"h": more}) == {}
    assert node.known.groups["g"].prefixes == (parse_prefix("10.0.0.0/8"),)


def test_nodes_that_are_told_the_same_are_read_once() -> None:
    """An object that is another one at a node is read there."""
    reader, asked = Readings(), cnp(TO_GROUP)
    settings = Settings()
    assert reader(asked, settings) is reader(cnp(dict(TO_GROUP)), settings)
    assert reader(cnp({"endpointSelector": {}}), settings).rules[0].rules == ()
    assert reader(asked, settings).rules[0].rules
    assert reader(asked, Settings(default_local_cluster=True)).valid
