"""The relay over several observers, asked by the real gRPC library."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2

from hubble.peers import Peer, PeerTable
from hubble.relay_merge import Merger, time_ns
from hubble.relay_pool import Pool
from hubble.relay_server import Relay
from hubble.rpc import Code, RpcError
from hubble.rpc_server import Call, Server
from hubble.standard_services import Health
from reconcile.tasks import TaskGroup
from tests.support.cli import isthmus
from tests.support.hubble import (
    BEGIN_NS,
    SECOND,
    MemorySource,
    Stub,
    asking,
    flow,
    observing,
    record,
)
from wire.hubble import flow_pb2, observer_pb2, peer_pb2, relay_pb2

State = relay_pb2.NodeState
Request = observer_pb2.GetFlowsRequest


class World:
    """Observers a, b and c, and a relay in front of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = {name: MemorySource() for name in "abc"}
        self.peers = PeerTable()
        self.pool = Pool(str(folder / "a"), None, None)
        self.relay = Relay(self.pool, "west/relay", "hubble-relay v0")

    def peer(self, name: str) -> Peer:
        return Peer(str(self.folder / name))

    async def connected(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.pool.connected()) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def relaying(folder: Path) -> AsyncIterator[tuple[World, Stub]]:
    world = World(folder)
    world.peers.replace({name: world.peer(name) for name in "abc"})
    async with contextlib.AsyncExitStack() as stack:
        for name, source in world.sources.items():
            source.node_name = f"west/{name}"
            await stack.enter_async_context(observing(source, folder / name, world.peers))
        health = Health(world.relay.is_serving)
        server = Server({**world.relay.handlers(), **health.handlers()})
        await stack.enter_async_context(server)
        await server.listen_unix(folder / "relay")
        group = await stack.enter_async_context(TaskGroup())
        task = group.create_task(world.pool.run(0.05))
        try:
            await world.connected(3)
            yield world, await stack.enter_async_context(asking(folder / "relay"))
        finally:
            task.cancel()


async def test_flows_of_all_nodes_come_in_order_of_time(tmp_path: Path) -> None:
    """After saying which nodes are asked; ``number`` is of each node."""
    async with relaying(tmp_path) as (world, stub):
        for count, (name, source) in enumerate(world.sources.items(), 3):
            source.add_flows(2 * count, node_name=f"west/{name}")
        answers = [answer async for answer in stub.flows(Request(number=5))]
        first = answers[0].node_status
        assert (first.state_change, list(first.node_names)) == (
            State.NODE_CONNECTED,
            ["a", "b", "c"],
        )
        flows = [answer for answer in answers if answer.HasField("flow")]
        times = [answer.time.ToNanoseconds() for answer in flows]
        assert times == sorted(times)
        assert sorted({answer.node_name for answer in flows}) == ["west/a", "west/b", "west/c"]
        assert len(flows) == 15


async def test_a_silent_node_delays_a_follow_stream_a_little(tmp_path: Path) -> None:
    """One node speaks, two are silent: its flows come within a second; new nodes join."""
    async with relaying(tmp_path) as (world, stub):
        world.peers.replace({name: world.peer(name) for name in "ab"})
        await world.connected(2)
        call = stub.flows(Request(follow=True))
        assert (await call.read()).node_status.state_change == State.NODE_CONNECTED
        while not world.sources["a"].ring._watchers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _ in range(3):
            world.sources["a"].add_flows(1)
            async with asyncio.timeout(10):  # without it, as long as the others are silent
                assert (await call.read()).HasField("flow")
        world.peers.replace({name: world.peer(name) for name in "abc"})
        async with asyncio.timeout(20):
            while not world.sources["c"].ring._watchers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            world.sources["c"].add_flows(1, node_name="west/c")
            assert (await call.read()).node_name == "west/c"
        call.cancel()


async def test_a_node_that_fails_is_told_in_the_stream(tmp_path: Path) -> None:
    """Garbage from one, another unreachable: NODE_ERROR and NODE_UNAVAILABLE, the rest comes."""

    async def garbage(call: Call) -> None:
        await call.request()
        await call.send(b"\xff\xff\xff")

    async with relaying(tmp_path) as (world, stub):
        world.sources["a"].add_flows(3)
        async with Server({"/observer.Observer/GetFlows": garbage}) as bad:
            await bad.listen_unix(tmp_path / "bad")
            nodes = {"a": world.peer("a"), "bad": world.peer("bad"), "no": world.peer("no")}
            world.peers.replace(nodes)
            async with asyncio.timeout(20):
                while {n.name for n in world.pool.connected()} != {"a", "bad"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            answers = [answer async for answer in stub.flows(Request())]
            said = {
                answer.node_status.state_change: list(answer.node_status.node_names)
                for answer in answers
                if answer.HasField("node_status")
            }
            assert said[State.NODE_UNAVAILABLE] == ["no"]
            assert said[State.NODE_ERROR] == ["bad"]
            assert sum(answer.HasField("flow") for answer in answers) == 3
            nodes_said = await stub.nodes(observer_pb2.GetNodesRequest())
            assert {node.name: node.state for node in nodes_said.nodes} == {
                "a": State.NODE_CONNECTED,
                "bad": State.NODE_ERROR,
                "no": State.NODE_UNAVAILABLE,
            }


async def test_nodes_that_fail_alike_are_told_together(tmp_path: Path) -> None:
    """One line for a reason, whether flows are followed or not; each node in it."""

    async def broken(call: Call) -> None:
        await call.request()
        raise RpcError(Code.INTERNAL, "out of order")

    async with (
        relaying(tmp_path) as (world, stub),
        Server({"/observer.Observer/GetFlows": broken}) as bad,
    ):
        names = [f"bad{number}" for number in range(20)]
        for name in names:
            await bad.listen_unix(tmp_path / name)
        world.peers.replace({name: world.peer(name) for name in ["a", *names]})
        await world.connected(21)
        for follow in (False, True):
            told: list[str] = []
            lines = 0
            call = stub.flows(Request(follow=follow))
            async with asyncio.timeout(10):
                while len(told) < len(names):
                    status = (await call.read()).node_status
                    if status.state_change == State.NODE_ERROR:
                        assert status.message == "out of order"
                        told += status.node_names
                        lines += 1
            assert sorted(told) == sorted(names)
            assert lines < len(names) // 2  # one, where the machine is not busy
            call.cancel()


async def test_what_some_nodes_do_not_answer_the_others_do(tmp_path: Path) -> None:
    """Namespaces and numbers of those that answer; who the caller is goes on to each; of many
    nodes that are away ten are named."""
    tokens: list[str] = []

    async def broken(call: Call) -> None:
        await call.request()
        tokens.append(call.headers.get("authorization", ""))
        raise RpcError(Code.INTERNAL, "out of order")

    paths = ("/observer.Observer/GetNamespaces", "/observer.Observer/ServerStatus")
    async with (
        relaying(tmp_path) as (world, stub),
        Server(dict.fromkeys(paths, broken)) as bad,
    ):
        await bad.listen_unix(tmp_path / "bad")
        away = [f"away{number:02}" for number in range(12)]
        world.peers.replace({name: world.peer(name) for name in ["a", "bad", *away]})
        await world.connected(2)
        world.sources["a"].known_namespaces = [("west", "shop")]
        asked = observer_pb2.GetNamespacesRequest()
        known = await stub.namespaces(asked, metadata=(("authorization", "Basic eA=="),))
        assert [one.namespace for one in known.namespaces] == ["shop"]
        assert tokens == ["Basic eA=="]
        status = await stub.status(observer_pb2.ServerStatusRequest())
        assert status.max_flows == world.sources["a"].ring.capacity
        assert 0 < status.uptime_ns < 60 * SECOND
        assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (1, 13)
        assert list(status.unavailable_nodes) == away[:10]


async def test_numbers_of_all_nodes(tmp_path: Path) -> None:
    """Summed status with the nodes' wrappers, the union of namespaces, health, nothing else."""
    async with relaying(tmp_path) as (world, stub):
        for name, source in world.sources.items():
            source.add_flows(10)
            source.known_namespaces = [("west", "shop"), ("west", name)]
        status = await stub.status(observer_pb2.ServerStatusRequest())
        assert (status.num_flows, status.max_flows, status.seen_flows) == (30, 3069, 30)
        assert status.num_connected_nodes.value == 3
        assert status.HasField("num_unavailable_nodes")
        assert status.version == "hubble-relay v0"
        known = await stub.namespaces(observer_pb2.GetNamespacesRequest())
        assert [one.namespace for one in known.namespaces] == ["a", "b", "c", "shop"]
        for wrong, code in (
            (Request(whitelist=[flow_pb2.FlowFilter(source_ip=["x"])]), "INVALID_ARGUMENT"),
            (Request(first=True, follow=True), "INVALID_ARGUMENT"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=code):
                [answer async for answer in stub.flows(wrong)]
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            [a async for a in stub.agent_events(observer_pb2.GetAgentEventsRequest())]
        async with grpc.aio.insecure_channel(f"unix://{tmp_path}/relay") as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            asked = health_pb2.HealthCheckRequest(service="hubble.server.Observer")
            assert (await check(asked)).status == health_pb2.HealthCheckResponse.SERVING
            world.peers.replace({})
            await world.connected(0)
            assert (await check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING


def answer_at(second: float, text: str = "") -> bytes:
    made = observer_pb2.GetFlowsResponse(node_name="n")
    made.flow.Summary = text
    made.time.FromNanoseconds(BEGIN_NS + int(second * SECOND))
    return made.SerializeToString()


async def test_a_reader_that_does_not_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Others get all at their pace, and what is held for it is bounded."""
    async with relaying(tmp_path) as (world, stub):
        source = world.sources["a"]
        stuck = stub.flows(Request(number=1023))
        assert (await stuck.read()).HasField("node_status")
        for source in world.sources.values():
            source.add_flows(1023, Summary="x" * 2000)  # two megabytes of each node
        before = [stub.flows(Request(number=1023)) for _ in range(3)]
        for call in before:
            assert (await call.read()).HasField("node_status")  # these never read on
        async with asyncio.timeout(20):
            flows = [answer async for answer in stub.flows(Request(number=1023))]
        assert len([1 for answer in flows if answer.HasField("flow")]) == 3 * 1023
        for call in (stuck, *before):
            call.cancel()


async def test_a_peer_service_that_sends_garbage_is_asked_again(tmp_path: Path) -> None:
    """What was known of nodes stays; the relay serves on."""
    told = asyncio.Event()
    calls = 0

    async def notify(call: Call) -> None:
        nonlocal calls
        await call.request()
        calls += 1
        if calls == 1:
            note = peer_pb2.ChangeNotification(name="a", address=str(tmp_path / "a"), type=1)
            await call.send(note.SerializeToString())
        await call.send(b"\xff\xff")
        if calls == 3:
            told.set()

    async with (
        Server({"/peer.Peer/Notify": notify}) as service,
        observing(MemorySource(), tmp_path / "a"),
        TaskGroup() as group,
    ):
        await service.listen_unix(tmp_path / "service")
        pool = Pool(str(tmp_path / "service"), None, None)
        task = group.create_task(pool.run(0.01))
        async with asyncio.timeout(20):
            await told.wait()
            while not pool.connected():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert list(pool.nodes) == ["a"]
        task.cancel()


def test_the_merge_waits_for_the_slower_and_not_for_ever() -> None:
    """In order as far as all have spoken; after the wait without them; at the end all of it."""
    merger = Merger(wait_s=1)
    merger.open("a", 0)
    merger.open("b", 0)
    merger.push("a", [answer_at(1), answer_at(3)], now_s=0)
    assert merger.pop(0.5) == []
    merger.push("b", [answer_at(2)], now_s=0.5)
    assert merger.pop(0.5) == [answer_at(1), answer_at(2)]
    assert merger.pop(0.9) == []
    assert merger.pop(1.1) == [answer_at(3)]
    merger.push("a", [answer_at(9)], now_s=2)
    merger.push("b", [answer_at(8)], now_s=2)
    merger.close("a")
    merger.close("b")
    assert merger.pop(2) == [answer_at(8), answer_at(9)]
    assert len(merger) == 0


def test_a_clock_that_is_behind_delays_nobody_for_long() -> None:
    """A node that always speaks of ten seconds ago: others wait as for a silent one."""
    merger = Merger(wait_s=0.2)
    merger.open("right", 0)
    merger.open("behind", 0)
    waited, sent_s = [], {}
    for step in range(100):
        now_s = step * 0.05
        if step % 4 == 0:
            right = answer_at(100 + now_s, f"right {step}")
            sent_s[right] = now_s
            merger.push("right", [right], now_s)
        merger.push("behind", [answer_at(90 + now_s)], now_s)
        waited += [now_s - sent_s[one] for one in merger.pop(now_s) if one in sent_s]
    assert len(waited) > 20
    assert max(waited) <= 0.25


def test_a_clock_that_is_ahead_counts_as_of_arrival() -> None:
    """A node a century ahead: its answers are not kept back, and the others' order is kept."""
    merger = Merger(wait_s=0.2)
    names = ("one", "other", "ahead")
    for name in names:
        merger.open(name, 0)
    told: list[bytes] = []
    sent_s: dict[bytes, float] = {}
    late: list[float] = []
    for step in range(100):
        now_s, wall_ns = step * 0.05, BEGIN_NS + 100 * SECOND + step * SECOND // 20
        ahead = answer_at(10**9 + now_s, f"ahead {step}")
        sent_s[ahead] = now_s
        merger.push("ahead", [ahead], now_s, wall_ns)
        merger.push("one", [answer_at(99.98 + now_s, "one")], now_s, wall_ns)
        if step:  # always the last one to speak, of what was before
            merger.push("other", [answer_at(99.96 + now_s, "other")], now_s, wall_ns)
        popped = merger.pop(now_s)
        late += [now_s - sent_s[one] for one in popped if one in sent_s]
        told += [one for one in popped if one not in sent_s]
    times = [time_ns(one) for one in told]
    assert len(times) > 180
    assert times == sorted(times)
    assert len(late) > 90
    assert max(late) <= 0.25


async def test_clocks_that_differ_lose_nothing_and_delay_nobody(tmp_path: Path) -> None:
    """One node an hour behind, one a century ahead: all that is there comes, and what is new."""
    century = 100 * 365 * 24 * 3600 * SECOND
    async with relaying(tmp_path) as (world, stub):

        def tell(name: str, number: int, offset_ns: int) -> None:
            made = record(flow(number, node_name=f"west/{name}"))
            world.sources[name].ring.extend([(time.time_ns() + offset_ns, made)])

        offsets = {"a": 0, "b": -3600 * SECOND, "c": century}
        for number in range(1, 4):
            for name, offset in offsets.items():
                tell(name, number, offset)
        answers = [a async for a in stub.flows(Request(number=100)) if a.HasField("flow")]
        told = [(a.node_name[-1], a.flow.uuid) for a in answers]
        assert told == [(name, f"u{n}") for name in "bac" for n in (1, 2, 3)]
        call = stub.flows(Request(follow=True))
        assert (await call.read()).HasField("node_status")
        while not all(source.ring._watchers for source in world.sources.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for number in range(4, 14):
            for name, offset in offsets.items():
                tell(name, number, offset)
            async with asyncio.timeout(10):
                seen = {(await call.read()).node_name for _ in offsets}
            assert seen == {"west/a", "west/b", "west/c"}
        call.cancel()


def test_the_time_is_read_without_the_rest() -> None:
    """Of large and small answers, and of those without; what is no answer is refused."""
    for second in (0, 0.000000001, 1, 123456.789):
        expected = observer_pb2.GetFlowsResponse.FromString(answer_at(second)).time
        assert time_ns(answer_at(second, "x" * 300)) == expected.ToNanoseconds()
    assert time_ns(b"") == 0
    for garbage in (b"\xff", b"\x0a\x05x", b"\x08\x01", b"\xff" * 20):
        with pytest.raises(ValueError, match=r"cut short|not of|64 bits"):
            time_ns(garbage)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_process_and_the_command(tmp_path: Path) -> None:
    """``hubble-relay serve`` over one node: status, nodes and flows by ``isthmus hubble``.

    Its settings come by file, environment and flags, as those of the well-known relay.
    """
    source, peers = MemorySource(), PeerTable()
    source.add_flows(3)
    peers.replace({"east/node-9": Peer("127.0.0.1:1"), "node-1": Peer(str(tmp_path / "a"))})
    port, health, metrics = free_port(), free_port(), free_port()
    async with observing(source, tmp_path / "a", peers):
        settings = {
            "cluster-name": "west",
            "peer-service": f"unix://{tmp_path}/a",
            "listen-address": "127.0.0.1:1",  # the flag counts
            "health-listen-address": "127.0.0.1:1",  # the environment counts
            "metrics-listen-address": f"127.0.0.1:{metrics}",
            "retry-timeout": "30s",
            "disable-client-tls": True,
            "disable-server-tls": True,
            "sort-buffer-len-max": None,
            "sort-buffer-drain-timeout": "1s",
            "gops": False,
            "of-a-later-version": 7,
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "hubble.relay_main", "serve"]
        command += ["--config", f"{tmp_path}/config.yaml", "--listen-address", f"127.0.0.1:{port}"]
        command += ["--sort-buffer-len-max", "100", "--pprof", "--gops-port", "9893"]
        there = os.environ | {"RELAY_HEALTH_LISTEN_ADDRESS": f"127.0.0.1:{health}"}
        process = await asyncio.create_subprocess_exec(*command, env=there)
        try:
            at = ("--server", f"localhost:{port}")
            async with asyncio.timeout(100):
                while True:
                    said = await asyncio.to_thread(isthmus, "hubble", "status", *at)
                    if not said.code and "Connected Nodes: 1/2" in said.out:
                        break
                    await asyncio.sleep(0.1)
            assert "Unavailable Nodes: 1\n  - east/node-9" in said.out
            said = await asyncio.to_thread(isthmus, "hubble", "list", "nodes", *at)
            states = [line.split()[:2] for line in said.out.splitlines()[1:]]
            assert states == [["east/node-9", "Unavailable"], ["node-1", "Connected"]]
            said = await asyncio.to_thread(isthmus, "hubble", "observe", *at)
            assert len(said.out.splitlines()) == 3
            assert " [west/" in said.err
            assert said.err.splitlines()[0].endswith("1 nodes are unavailable: east/node-9")
            at = ("--server", f"localhost:{health}")
            said = await asyncio.to_thread(isthmus, "hubble", "observe", *at)
            assert "unknown method /observer.Observer/GetFlows" in said.err
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{metrics}/metrics") as page,
            ):
                lines = (await page.text()).splitlines()
            states = "hubble_relay_pool_peer_connection_status"
            assert f'{states}{{status="READY"}} 1' in lines
            assert f'{states}{{status="TRANSIENT_FAILURE"}} 1' in lines
            assert 'isthmus_hubble_relay_nodes{cluster="east",connected="false"} 1' in lines
            method = 'grpc_service="observer.Observer",grpc_method="GetNodes"'
            handled = f'grpc_server_handled_total{{grpc_type="unary",{method},grpc_code="OK"}} '
            assert any(line.startswith(handled) for line in lines)
        finally:
            process.terminate()
            await process.wait()
    assert process.returncode in (0, -15)
