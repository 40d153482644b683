"""Policy under traffic: while rows change and agents restart, what is forbidden never passes."""

from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from cli.bpf import bpf
from datapath.policy_plan import PolicyRows
from model.endpoint import EndpointId
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.support.nodes import Pod, Stage, two_nodes

pytestmark = pytest.mark.root

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY = PolicyEntry(), PolicyEntry(deny=True)
FREE = {PolicyKey(0, IN): ALLOW, PolicyKey(0, OUT): ALLOW}
OPEN_PORT, SHUT_PORT = 8080, 9090
UDP = 17
# All of them allow the open port to anybody and forbid the shut one, each by other rows.
WAYS: tuple[dict[PolicyKey, PolicyEntry], ...] = (
    {PolicyKey(0, IN, UDP, OPEN_PORT, 24): ALLOW},
    {PolicyKey(0, IN): ALLOW, PolicyKey(0, IN, UDP, SHUT_PORT, 24): DENY},
    {PolicyKey(70001, IN): ALLOW, PolicyKey(0, IN, UDP, SHUT_PORT, 24): DENY},
    {PolicyKey(70001, IN, UDP, OPEN_PORT, 24): ALLOW, PolicyKey(5, IN): ALLOW},
    {PolicyKey(70001, IN): ALLOW, PolicyKey(70001, IN, UDP, SHUT_PORT, 24): DENY},
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with two_nodes(policy=True) as made:
        yield made


def number(pod: Pod) -> EndpointId:
    return EndpointId(pod.node.pods.index(pod) + 2)


async def allow(pod: Pod, rows: PolicyRows) -> None:
    assert await pod.node.datapath.policy.upsert([(number(pod), rows)]) == {}


async def test_nothing_passes_between_two_sets_of_rows(stage: Stage) -> None:
    """Under a flood at both ports, through 150 changes and a restart of each agent: no datagram of
    the forbidden ones arrives, and none of the allowed ones is lost.
    """
    one, two = stage.nodes
    client = await one.add_pod("client", 70001)
    servers = [await one.add_pod("near", 70002), await two.add_pod("far", 70003)]
    await allow(client, FREE)
    for server in servers:
        await allow(server, WAYS[0] | {PolicyKey(0, OUT): ALLOW})
        server.serve("udp", OPEN_PORT)
    shut = [s.start("count-udp", s.address, SHUT_PORT, "shut").ready() for s in servers]
    allowed = [client.start("steady-udp", s.address, OPEN_PORT, 0.002).ready() for s in servers]
    flood = [client.start("steady-udp", s.address, SHUT_PORT, 0.0002).ready() for s in servers]
    for turn in range(150):
        for server in servers:
            await allow(server, WAYS[turn % len(WAYS)] | {PolicyKey(0, OUT): ALLOW})
        if turn == 75:
            for node in stage.nodes:
                await node.reopen()
    for process in flood:
        seen = process.finish()
        assert seen["sent"] > 500, seen
        assert seen["answered"] == 0, seen
    assert [process.finish() for process in shut] == [{}, {}], "not one came to a pod"
    for process in allowed:
        seen = process.finish()
        assert seen["sent"] > 50
        assert seen["answered"] == seen["sent"], seen


async def test_pod_without_rows_is_closed_and_opens_with_them(stage: Stage) -> None:
    """Enforcement is there before the agent: nothing passes until the rows are written."""
    one, two = stage.nodes
    client = await one.add_pod("client", 70001)
    far = await two.add_pod("far", 70003)
    far.serve()
    assert client.try_("tcp", far.address, 8080)["names"] == {}
    await allow(client, FREE)
    assert client.try_("tcp", far.address, 8080)["names"] == {}
    await allow(far, FREE)
    assert client.run("tcp", far.address, 8080)["names"] == {"far": 1}
    assert set(await one.drops()) == {(203, 2)}
    assert set(await two.drops()) == {(203, 1)}


async def test_rows_are_shown_with_what_they_matched(stage: Stage) -> None:
    """``isthmus bpf policy`` reads the pinned maps, without an agent."""
    one, _ = stage.nodes
    client = await one.add_pod("client", 70001)
    near = await one.add_pod("near", 70002)
    await allow(client, FREE)
    await allow(near, {PolicyKey(0, IN): ALLOW, PolicyKey(70001, IN): PolicyEntry(rule=7)})
    near.serve()
    client.run("tcp", near.address, 8080)
    pins = ("--pin-dir", str(one.config.pin_dir))
    shown = CliRunner().invoke(bpf, ["policy", "get", str(number(near)), *pins])
    assert shown.exit_code == 0, shown.output
    row = next(line for line in shown.output.splitlines() if "70001" in line).split()
    assert row[:4] == ["Allow", "Ingress", "70001", "ANY"]
    assert int(row[7]) > 3
    assert (row[8], row[9]) == ("0", "7")
    every = CliRunner().invoke(bpf, ["policy", "list", *pins])
    assert "Endpoint ID: 2" in every.output
    assert "Endpoint ID: 3" in every.output
    missing = CliRunner().invoke(bpf, ["policy", "get", "77", *pins])
    assert missing.exit_code == 1
    assert "endpoint 77 has no policy map; those that have: 2, 3" in missing.output
