"""``isthmus hubble status``, ``list``, ``watch`` and ``reflect``, and calls that fail."""

import asyncio
import json
from pathlib import Path

from hubble.peers import Peer, PeerTable
from hubble.rpc_server import Call, Server
from reconcile.tasks import TaskGroup
from tests.support.cli import isthmus
from tests.support.hubble import MemorySource, observing
from tests.support.hubble_scenes import run
from wire.hubble import observer_pb2, relay_pb2

GOLDEN = Path(__file__).parents[2] / "golden"


async def test_failures_end_with_one_line(tmp_path: Path) -> None:
    """Nobody there, a filter the server refuses, a call it does not have: exit 1 and the reason."""
    nowhere = ("--server", f"unix://{tmp_path}/no.sock")
    said = await asyncio.to_thread(isthmus, "hubble", "observe", *nowhere)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"Error: unix://{tmp_path}/no.sock: ")
    said = await asyncio.to_thread(isthmus, "hubble", "status", "--server", "localhost")
    assert (said.code, said.err) == (
        1,
        "Error: localhost: not of the form host:port or unix:///path\n",
    )
    said = await run(tmp_path, MemorySource(), "observe", "--ip", "10.0.0")
    assert said.code == 1
    assert "source_ip '10.0.0': neither an address nor a CIDR (invalid argument" in said.err
    said = await run(tmp_path, MemorySource(), "list", "nodes")
    assert said.code == 1
    assert "ask a relay" in said.err
    assert len(said.err.splitlines()) == 1


async def test_status(tmp_path: Path) -> None:
    """Health and numbers, in all formats; the nodes' lines only where a relay says them."""
    source = MemorySource(capacity=7)
    source.add_flows(10)
    said = await run(tmp_path, source, "status")
    lines = said.out.splitlines()
    assert lines[0] == f"Healthcheck (via unix://{tmp_path}/h.sock): Ok"
    assert lines[1] == "Current/Max Flows: 7/7 (100.00%)"
    assert lines[2].startswith("Flows/s: ")
    assert (said.code, len(lines)) == (0, 3)
    table = await run(tmp_path, source, "status", "-o", "table")
    assert table.out.split("\n")[0].startswith("NUM FLOWS   MAX FLOWS   SEEN FLOWS")
    shown = json.loads((await run(tmp_path, source, "status", "-o", "json")).out)
    assert (shown["num_flows"], shown["seen_flows"]) == ("7", "10")
    named = await run(tmp_path, source, "status", "-o", "dict")
    assert "NUM UNAVAIL. NODES: N/A" in named.out


async def test_namespaces_and_peers(tmp_path: Path) -> None:
    """Listed as told; the cluster only when asked for."""
    source = MemorySource()
    source.known_namespaces = [("east", "shop"), ("west", "kube-system")]
    said = await run(tmp_path, source, "list", "namespaces", "-o", "wide")
    assert said.out == "NAMESPACE     CLUSTER\nshop          east\nkube-system   west\n"
    said = await run(tmp_path, source, "list", "namespaces")
    assert said.out == "NAMESPACE\nshop\nkube-system\n"


def test_nodes_are_listed_by_name() -> None:
    """As a relay describes them, the missing as N/A."""
    from cli import hubble_listing

    answer = observer_pb2.GetNodesResponse()
    answer.nodes.add(
        name="node-1",
        version="isthmus v1",
        address="192.0.2.1:4244",
        state=1,
        uptime_ns=3661 * 10**9,
        num_flows=4095,
        max_flows=4095,
        seen_flows=100_000,
        tls=observer_pb2.TLS(enabled=True),
    )
    answer.nodes.add(name="east/node-9", address="192.0.2.9:4244", state=2)
    expected = (GOLDEN / "hubble_nodes_wide.txt").read_text()
    assert hubble_listing.nodes(answer, wide=True) == expected.rstrip("\n")


async def test_peers_are_watched(tmp_path: Path) -> None:
    """One line a change, until the server goes away: that is a failure and says so."""
    peers = PeerTable()
    peers.replace({"node-1": Peer("192.0.2.1:4244", "node-1.default.hubble-grpc.cilium.io")})
    path = tmp_path / "h.sock"
    async with asyncio.timeout(30), TaskGroup() as group:
        async with observing(MemorySource(), path, peers) as server:
            command = group.create_task(
                asyncio.to_thread(isthmus, "hubble", "watch", "peers", "--server", f"unix://{path}")
            )
            while not any(c.streams for c in server.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # the answer is on its way before the server ends
        said = await command
    assert said.out == (
        "PEER_ADDED   192.0.2.1:4244 node-1 "
        "(TLS.ServerName: node-1.default.hubble-grpc.cilium.io)\n"
    )
    assert said.code == 1


async def test_what_a_server_describes(tmp_path: Path) -> None:
    """Services with their methods and messages with their fields, by reflection."""
    said = await run(tmp_path, MemorySource(), "reflect")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert "service observer.Observer" in lines
    request, answer = "observer.GetFlowsRequest", "observer.GetFlowsResponse"
    assert f"  GetFlows({request}) returns (stream {answer})" in lines
    assert lines[lines.index("message flow.Flow") + 1] == "  1 time"


def status_of(state: str, names: int, message: str = "") -> bytes:
    """What a relay says of nodes."""
    answer = observer_pb2.GetFlowsResponse(node_name="relay-1")
    answer.node_status.state_change = relay_pb2.NodeState.Value(state)
    answer.node_status.node_names.extend(f"node-{n}" for n in range(1, names + 1))
    answer.node_status.message = message
    answer.time.FromNanoseconds(1_750_000_000 * 10**9)
    return answer.SerializeToString()


async def test_what_is_said_of_nodes(tmp_path: Path) -> None:
    """On stderr, in the format asked for; connected ones only with -D, failures not with -s."""

    async def flows(call: Call) -> None:
        await call.request()
        await call.send(
            status_of("NODE_CONNECTED", 2),
            status_of("NODE_UNAVAILABLE", 12),
            status_of("NODE_ERROR", 1, 'no "answer"\x1b'),
            status_of("NODE_GONE", 1),
        )

    async with Server({"/observer.Observer/GetFlows": flows}) as server:
        await server.listen_unix(tmp_path / "h.sock")

        async def said(*words: str) -> list[str]:
            where = ("--server", f"unix://{tmp_path}/h.sock")
            found = await asyncio.to_thread(isthmus, "hubble", "observe", *words, *where)
            assert (found.code, found.out) == (0, "")
            return found.err.splitlines()

        begin = "Jun 15 15:06:40.000 [relay-1]: "
        many = ", ".join(f"node-{n}" for n in range(1, 11))
        away = f"{begin}12 nodes are unavailable: {many} (and 2 more)"
        failed = f'{begin}Error "no \\"answer\\"\\x1b" on 1 nodes: node-1'
        assert await said() == [away, failed]
        assert await said("-s") == [away]
        connected, gone = "2 nodes are connected: node-1, node-2", "1 nodes are gone: node-1"
        assert await said("-D") == [begin + connected, away, failed, begin + gone]
        states = [
            json.loads(line)["node_status"]["state_change"] for line in await said("-o", "json")
        ]
        assert states == ["NODE_UNAVAILABLE", "NODE_ERROR"]
        assert (await said("-o", "dict", "-s"))[:3] == [
            "  TIMESTAMP: Jun 15 15:06:40.000",
            "      STATE: NODE_UNAVAILABLE",
            f"      NODES: {many} (and 2 more)",
        ]
