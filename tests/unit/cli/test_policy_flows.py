"""Recorded flows: what is read of Hubble's lines, and which of their verdicts change."""

from collections import Counter
from pathlib import Path

import click
import pytest
from google.protobuf import json_format

from cli import policy_flows
from model.policy_map import Direction
from policy.oracle import lookup
from policy.whatif import Recorded, computed, replay
from tests.support.policy_engine import Engine
from tests.support.random_policies import Writer
from tests.unit.policy.test_whatif import facts_of
from wire.hubble import flow_pb2, observer_pb2


def line(**more: object) -> str:
    said = {
        "source": {"identity": 70, "namespace": "web", "pod_name": "client"},
        "destination": {"identity": 80, "namespace": "web", "pod_name": "server"},
        "l4": {"TCP": {"source_port": 40000, "destination_port": 8080}},
        "is_reply": False,
        **more,
    }
    flow = json_format.ParseDict(said, flow_pb2.Flow())
    answer = observer_pb2.GetFlowsResponse(flow=flow, node_name="alpha/n1")
    return json_format.MessageToJson(answer, indent=None, preserving_proto_field_name=True)


def test_lines_of_hubble(tmp_path: Path) -> None:
    """Counted; replies, translations, losses and what has no protocol are left out."""
    file = tmp_path / "flows.json"
    texts = [
        line(), line(), line(is_reply=True), line(l4={"UDP": {"destination_port": 53}}), "",
        line(l4={"ICMPv4": {"type": 8}}), line(l4={}), '{"lost_events":{"num_events_lost":3}}',
        line(source={"identity": 2}), line(Type="SOCK", verdict="TRANSLATED"),
    ]  # fmt: skip
    file.write_text("\n".join(texts))
    both = ("web/client", "web/server", 70, 80)
    assert policy_flows.read(str(file)) == Counter(
        {
            Recorded(*both, 6, 8080): 2,
            Recorded(*both, 17, 53): 1,
            Recorded(*both, 1, 8): 1,
            Recorded("", "web/server", 2, 80, 6, 8080): 1,
        }
    )


@pytest.mark.parametrize(
    "bad", ["{", "[1]", '{"flow": {"l4": 3}}', '{"flow": {"source": 7, "l4": {"TCP": {}}}}']
)
def test_bad_lines_are_named(tmp_path: Path, bad: str) -> None:
    """With the file and the line."""
    file = tmp_path / "flows.json"
    file.write_text(f"{line()}\n{bad}\n")
    with pytest.raises(click.ClickException, match="line 2 is no flow"):
        policy_flows.read(str(file))
    with pytest.raises(click.ClickException, match="cannot be read"):
        policy_flows.read(str(tmp_path / "none"))


@pytest.mark.parametrize("seed", range(4))
def test_replayed_are_those_that_differ(seed: int) -> None:
    """Every flow whose verdict differs between two random worlds, at its side, and no other."""
    old, new = Writer(seed).objects(), Writer(seed + 1000).objects()
    both = Engine([*old, *new])
    before, after = facts_of(both, old), facts_of(both, new)
    name = "default/web"
    flows = {
        flow: 1
        for number in before.identities
        for port in (80, 8080, 53)
        for flow in (
            Recorded(f"p/{number}", name, number, 1, 6, port),
            Recorded(name, f"p/{number}", 1, number, 17, port),
        )
    }
    tables = before.table(), after.table()
    found = {
        (r.direction, r.peer, r.protocol, r.port): (r.before, r.after)
        for r in replay(*map(computed, tables), {name: 1}, flows)
    }
    for flow in flows:
        way = Direction.EGRESS if flow.source == name else Direction.INGRESS
        peer = flow.destination_identity if way is Direction.EGRESS else flow.source_identity
        ask = (way, peer, flow.protocol, flow.port)
        was, will = (lookup(table.rows(name), *ask)[0] for table in tables)
        assert found.get(ask) == (None if was is will else (was, will))
