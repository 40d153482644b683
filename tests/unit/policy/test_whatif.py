"""Differences between two computations are those that the oracle sees, and no others."""

import itertools

import pytest

from model.policy_map import Direction
from policy.facts import EndpointFact, Facts, from_json, to_json
from policy.objects.read import Source
from policy.oracle import Packet, Verdict, verdict
from policy.whatif import OTHERS, compare, points
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
    tables = before.table(), after.table()
    ports = points([*before.rules(), *after.rules()], {("http", 6): {8080}})
    told = {}
    for found in compare(*tables, "default/web", ports):
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
        assert told.get((way, number, protocol, port)) == wanted


def test_who_decides_is_named() -> None:
    """A new policy shuts all but its client; identities that are alike are told together."""
    client = {"fromEndpoints": [{"matchLabels": {"app": "client"}}]}
    spec = {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [client]}
    empty, full = Engine([]), Engine([cnp(spec, "only-client")])
    (found,) = {
        d.peers: d for d in compare(empty.table, full.table, "e", set()) if d.protocol == 6
    }.values()
    assert (found.before, found.after) == (Verdict.ALLOWED, Verdict.DROPPED)
    assert len(found.peers) > len(PEERS) / 2
    assert not {empty.numbers[name] for name in "CRH"} & set(found.peers)
    (back,) = {
        d.rule_before for d in compare(full.table, empty.table, "e", set()) if d.protocol == 6
    }
    assert back is None  # default deny, by no rule
