"""A node's Hubble beside a real agent: real packets become flows with names, whoever dies."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from datapath.events import open_events
from hubble.config import ACCESS_LOG
from hubble.node import NodeSource
from tests.support.access_log import Proxy, dns_answer
from tests.support.agent import (
    AgentNode,
    RemoteCluster,
    TestPod,
    agent_node,
    endpoint_slice,
    put,
    remote_cluster,
    selectable,
    service,
    traffic,
    until,
)
from tests.support.hubble_process import hubble
from wire.hubble import flow_pb2 as f

pytestmark = pytest.mark.root

VIP = "10.96.7.7"
FLAGS = {"enable-hubble": "true"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AgentNode]:
    async with agent_node(tmp_path) as found:
        found.flags = dict(FLAGS)
        yield found


@pytest.fixture
async def beta(node: AgentNode) -> AsyncIterator[RemoteCluster]:
    async with remote_cluster(node) as found:
        yield found


def flows(source: NodeSource, claim: Callable[[f.Flow], bool] = lambda flow: True) -> list[f.Flow]:
    """Every flow of the ring that a claim holds for."""
    ring = source.ring
    found = [
        source.decode(entry)
        for number in range(ring.oldest, ring.newest + 1)
        if (entry := ring.at(number)) is not None
    ]
    return [flow for flow in found if isinstance(flow, f.Flow) and claim(flow)]


def between(source: str, destination: str) -> Callable[[f.Flow], bool]:
    return lambda flow: (flow.source.pod_name, flow.destination.pod_name) == (source, destination)


async def pods(node: AgentNode, stack: AsyncExitStack) -> tuple[TestPod, TestPod]:
    """A client, and a server that listens."""
    client = await node.add(node.pod("client", {"app": "client"}))
    owner = {"kind": "ReplicaSet", "name": "web-5d4f", "uid": "u", "controller": True}
    server = node.pod("web-5d4f-x", {"app": "web", "pod-template-hash": "5d4f"})
    key = ("pods", "default", server.name)
    body = dict(node.fake.objects[key])
    more = {"generateName": "web-5d4f-", "ownerReferences": [owner]}
    put(node.fake, "pods", body | {"metadata": body["metadata"] | more})
    server = await node.add(server)
    stack.callback(server.serve().kill)
    return client, server


def connect(client: TestPod, address: str, port: int) -> None:
    assert traffic(client.namespace, "tcp", address, port).finish()["names"]


async def test_a_connection_through_a_service_is_seen_from_end_to_end(node: AgentNode) -> None:
    """Translated, forwarded, answered: with names, labels, workload, service and direction."""
    node.start()
    await node.ready()
    async with AsyncExitStack() as stack:
        client, server = await pods(node, stack)
        put(node.fake, "services", service("web", VIP))
        put(node.fake, "endpointslices", endpoint_slice("web", server.address))
        source = await stack.enter_async_context(hubble(node))
        await until(lambda: source.names.synced, "names")
        await until(lambda: source.names.service(bytes([10, 96, 7, 7]), 80, 6, 0), "the service")
        await until(lambda: server.address in selectable(node), "the backend's row")
        proxy = Proxy(node.socket.parent / ACCESS_LOG)
        proxy.tell(dns_answer("web.default.svc.", VIP, asker=client.address))
        proxy.close()
        await until(lambda: len(source.dns), "the name")
        connect(client, VIP, 80)

        def seen() -> list[f.Flow]:
            ends = [x for x in flows(source, between(server.name, "client")) if x.l4.TCP.flags.FIN]
            # Those of another processor may be read a moment later.
            return ends if len(flows(source, lambda flow: flow.Type == f.SOCK)) >= 4 else []

        await until(seen, "the answer")
        traced, translated = flows(source, lambda flow: flow.Type == f.SOCK)[:2]
        assert (traced.verdict, translated.verdict) == (f.TRACED, f.TRANSLATED)
        assert traced.source.pod_name == "client"
        assert list(traced.destination_names) == ["web.default.svc"]
        assert (traced.destination_service.namespace, traced.destination_service.name) == (
            "default",
            "web",
        )
        assert (translated.IP.destination, translated.l4.TCP.destination_port) == (
            server.address,
            8080,
        )
        first = [x for x in flows(source, between("client", server.name)) if x.event_type.type == 4]
        (syn,) = [flow for flow in first if flow.l4.TCP.flags.SYN]
        assert syn.verdict == f.FORWARDED
        assert syn.trace_observation_point == f.TO_ENDPOINT
        assert (syn.is_reply.value, syn.traffic_direction) == (False, f.INGRESS)
        assert "k8s:app=client" in syn.source.labels
        assert syn.source.cluster_name == syn.destination.cluster_name == "alpha"
        assert [(w.name, w.kind) for w in syn.destination.workloads] == [("web", "Deployment")]
        assert syn.node_name == "alpha/n1"
        assert "zone=a" in syn.node_labels
        assert syn.interface.name.startswith("lxc") or syn.interface.index > 0
        before, after = flows(source, lambda flow: flow.Type == f.SOCK)[2:]
        assert (before.verdict, after.verdict) == (f.TRACED, f.TRANSLATED)
        assert (before.IP.source, before.source.pod_name) == (server.address, server.name)
        assert (after.IP.source, after.source_service.name) == (VIP, "web")
        assert {flow.destination.pod_name for flow in (before, after)} == {"client"}
        backwards = flows(source, between(server.name, "client"))
        answers = [flow for flow in backwards if flow.event_type.type == 4]
        assert all(flow.is_reply.value for flow in answers)
        assert {flow.traffic_direction for flow in answers} == {f.EGRESS}
        assert {flow.source_service.name for flow in answers} == {"web"}
        times = [flow.time.ToNanoseconds() for flow in (traced, translated, syn, answers[0])]
        assert times == sorted(times)


async def test_a_pod_of_another_cluster_has_its_names(node: AgentNode, beta: RemoteCluster) -> None:
    """Its cluster by the labels of its identity, and where the packet went."""
    await beta.add_node("r1", "172.31.9.77", "10.77.0.0/24")
    await beta.add_identity((2 << 16) + 300, app="far")
    await beta.add_pod("10.77.0.5", "172.31.9.77", (2 << 16) + 300)
    beta.connect()
    node.start()
    await node.ready()
    client = await node.add(node.pod("client", {"app": "client"}))
    async with hubble(node) as source:
        address = bytes([10, 77, 0, 5])

        def told() -> bool:
            known = source.names.known(address, 0)
            return known is not None and bool(source.names.identity(known.identity, 0).labels)

        await until(told, "the remote pod's names")
        client.sh("ping -c1 -W1 10.77.0.5 || true")
        (flow,) = await until(
            lambda: flows(
                source, lambda x: x.IP.destination == "10.77.0.5" and x.event_type.type == 4
            ),
            "the flow",
        )
        assert flow.trace_observation_point == f.TO_OVERLAY
        assert flow.destination.cluster_name == "beta"
        assert "k8s:app=far" in flow.destination.labels
        assert flow.source.cluster_name == "alpha"
        assert flow.traffic_direction == f.EGRESS
        assert flow.Summary == "ICMPv4 EchoRequest"


async def test_names_outlive_the_pod_the_agent_and_its_absence(node: AgentNode) -> None:
    """A flow read after the pod's end has its name; a dead agent takes no name with it."""
    node.start()
    await node.ready()
    async with AsyncExitStack() as stack:
        client, server = await pods(node, stack)
        source = await stack.enter_async_context(hubble(node))
        await until(lambda: source.names.synced, "names")
        connect(client, server.address, 8080)
        await until(lambda: flows(source, between("client", server.name)), "flows")
        count = len(flows(source, between("client", server.name)))
        node.kill(signal.SIGKILL)
        connect(client, server.address, 8080)
        await until(
            lambda: len(flows(source, between("client", server.name))) > count,
            "flows without an agent",
        )
        before = source.names.revision
        node.start()
        await node.ready()
        await until(lambda: source.names.revision > before and source.names.synced, "names again")
        await node.cni("DEL", client)
        await until(lambda: source.names.local(_packed(client), 1 << 62) is None, "it is gone")
        assert len(flows(source, between("client", server.name))) > count

        def deletions() -> list[f.AgentEvent]:
            return [
                event
                for number in range(source.ring.oldest, source.ring.newest + 1)
                if (entry := source.ring.at(number)) and (event := source.decode(entry))
                if isinstance(event, f.AgentEvent) and event.type == f.ENDPOINT_DELETED
            ]

        ends = await until(deletions, "its end is told")
        assert [event.endpoint_update.pod_name for event in ends] == ["client"]


def _packed(pod: TestPod) -> bytes:
    return bytes(map(int, pod.address.split(".")))


async def test_what_nobody_took_is_counted_exactly(node: AgentNode) -> None:
    """Packets go on while nobody reads; what is found then and what was lost is all there was."""
    node.flags["monitor-aggregation"] = "none"
    node.start()
    await node.ready()
    async with AsyncExitStack() as stack:
        client, server = await pods(node, stack)
        async with hubble(node, 65535) as source:
            await until(lambda: source.intake.is_open and source.names.synced, "hubble")
        counted = 5000
        sent = client.sh(f"ping -q -i 0.0002 -c {counted} -W 10 {server.address}")
        assert f"{counted} received" in sent
        async with hubble(node, 65535) as source:
            await until(lambda: source.names.synced and source.intake.is_open, "hubble again")
            client.sh(f"ping -q -i 0.0002 -c {counted} -W 10 {server.address}")

            async def all_taken() -> bool:
                newest = source.ring.newest
                await asyncio.sleep(1)
                return source.ring.newest == newest

            await until(all_taken, "everything is taken")
            taken = flows(source, lambda x: x.event_type.type == 4 and x.l4.HasField("ICMPv4"))
            lost = sum(source.intake.lost.values())
            told = sum(
                event.num_events_lost
                for number in range(source.ring.oldest, source.ring.newest + 1)
                if (entry := source.ring.at(number)) and (event := source.decode(entry))
                if isinstance(event, f.LostEvent)
            )
            assert told == lost
            # Each round trip is four traces; of those before, the ring held what it could.
            assert len(taken) + lost >= 4 * counted
            held = len(taken) + lost - 4 * counted
            assert 0 < held <= (1 << 20) // 184


async def test_switched_off_there_are_no_events(node: AgentNode) -> None:
    """Without enable-hubble the programs tell nothing."""
    node.flags = {}
    node.start()
    await node.ready()
    async with AsyncExitStack() as stack:
        client, server = await pods(node, stack)
        connect(client, server.address, 8080)
        reader = open_events(node.bpf_root / "isthmus")
        assert reader is not None
        stack.callback(reader.close)
        assert reader.take() == []
        assert sum(map(sum, reader.lost().values())) == 0
