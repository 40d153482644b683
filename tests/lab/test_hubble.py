"""Flows of two joined clusters, a Hubble beside each agent, asked over gRPC as clients do."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kind.lab import host
from kind.lab.topology import Node
from kind.story import C1, C2
from tests.support import cilium_dashboards, hubble_ui
from tests.support import lab as labs
from tests.support.dashboards import queries
from tests.support.hubble import asking
from tests.support.hubble_traffic import DENY, Talk, pages
from tests.support.hubble_world import RELAY, World
from tests.support.lab import Json
from tests.support.prometheus import prometheus, wait_up
from wire.hubble import flow_pb2 as f
from wire.hubble import peer_pb2

pytestmark = [pytest.mark.root, pytest.mark.lab]

# Panels about what need not happen: something goes wrong.
QUIET = {
    ("operator", "Warnings and errors"),
    ("agent", "Warnings and errors"),
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    lab = labs.start("h", "--no-install")
    try:
        yield World(lab)
    finally:
        labs.stop(lab)


@pytest.mark.timeout(600)
def test_a_connection_between_clusters_is_seen_on_both_sides(world: World) -> None:
    """Both clusters' names on both nodes, with pods, workloads where they are at home, services."""
    client, server = world.pod(C1, "x-wing"), world.pod(C2, "x-wing")
    since = time.time()
    world.curl(f"http://{server['status']['podIP']}/")

    def traced(flow: f.Flow) -> bool:
        pods = (flow.source.pod_name, flow.destination.pod_name)
        ours = pods == (client["metadata"]["name"], server["metadata"]["name"])
        return ours and flow.event_type.type == 4

    out, into = (world.seen(world.node_of(pod), traced, since)[0] for pod in (client, server))
    for flow in (out, into):
        assert (flow.source.cluster_name, flow.destination.cluster_name) == (C1, C2)
        assert flow.source.namespace == flow.destination.namespace == "default"
        assert "k8s:name=x-wing" in flow.source.labels
        assert "k8s:name=x-wing" in flow.destination.labels
        assert flow.IP.destination == server["status"]["podIP"]
        assert flow.is_reply.value is False
        assert flow.verdict == f.FORWARDED
    assert out.node_name == f"{C1}/{client['spec']['nodeName']}"
    assert into.node_name == f"{C2}/{server['spec']['nodeName']}"
    assert (out.trace_observation_point, into.trace_observation_point) == (
        f.TO_OVERLAY,
        f.TO_ENDPOINT,
    )
    assert (out.traffic_direction, into.traffic_direction) == (f.EGRESS, f.INGRESS)
    assert [w.name for w in out.source.workloads] == ["x-wing"]
    assert [w.name for w in into.destination.workloads] == ["x-wing"]
    assert out.l4.TCP.source_port == into.l4.TCP.source_port
    assert out.time.ToNanoseconds() <= into.time.ToNanoseconds()


@pytest.mark.timeout(600)
def test_the_command_shows_flows_with_their_names(world: World) -> None:
    """`isthmus hubble observe` against a node's socket, by pod and as JSON."""
    client, server = world.pod(C1, "x-wing"), world.pod(C2, "x-wing")
    world.curl(f"http://{server['status']['podIP']}/")
    socket = world.node_of(client).root / "run/cilium/hubble.sock"
    words = ("hubble", "observe", "--server", f"unix://{socket}", "--last", "500")
    name = client["metadata"]["name"]

    def look() -> bool:
        lines = world.mesh.isthmus(*words, "--from-pod", f"default/{name}", "--type", "trace")
        assert f"default/{name}" in lines
        assert server["metadata"]["name"] in lines
        assert "to-overlay FORWARDED (TCP Flags: SYN)" in lines
        return True

    labs.wait_until("lines", look)
    said = world.mesh.isthmus(*words, "--to-cluster", C2, "-o", "json")
    flows = [json.loads(line)["flow"] for line in said.splitlines()]
    assert flows
    assert {flow["destination"]["cluster_name"] for flow in flows} == {C2}


@pytest.mark.timeout(600)
def test_a_global_service_is_named_and_its_translation_told(world: World) -> None:
    """Before and after; answers of the other cluster's backend have its pod and the service."""
    node = world.node_of(world.pod(C1, "x-wing"))
    since = time.time()
    for _ in range(12):
        world.curl("http://rebel-base/")

    def sock(claim: Callable[[f.Flow], bool]) -> list[f.Flow]:
        return world.seen(node, lambda flow: flow.Type == f.SOCK and claim(flow), since)

    sock(lambda x: x.verdict == f.TRACED and x.destination_service.name == "rebel-base")
    far = sock(lambda x: x.verdict == f.TRANSLATED and x.destination.cluster_name == C2)
    assert {x.destination.pod_name.rpartition("-")[0].rpartition("-")[0] for x in far} == {
        "rebel-base"
    }
    answers = world.seen(
        node,
        lambda x: x.is_reply.value and x.source.cluster_name == C2 and x.event_type.type == 4,
        since,
    )
    assert {x.source_service.name for x in answers} == {"rebel-base"}
    assert all(x.source.pod_name.startswith("rebel-base-") for x in answers)


@pytest.mark.timeout(600)
def test_a_policy_is_named_by_what_it_allows_and_denies(world: World) -> None:
    """On the receiving node, in the other cluster too."""
    world.lab.apply(DENY, cluster=C2)
    try:
        target = world.pod(C2, "rebel-base")
        node, address = world.node_of(target), target["status"]["podIP"]

        def judged() -> list[f.Flow]:
            since = time.time()
            world.mesh.inside(
                C1,
                world.pod(C1, "x-wing")["metadata"]["name"],
                *("sh", "-c", f"curl -s -m 1 http://{address}:81/; curl -s -m 2 http://{address}/"),
            )
            found = world.seen(
                node, lambda x: x.event_type.type == 5 and x.IP.destination == address, since
            )
            told = any(x.ingress_denied_by for x in found)
            return found if told and any(x.verdict == f.FORWARDED for x in found) else []

        flows = labs.wait_until("the policy decides", judged, 90, 0.5)
        denied = next(x for x in flows if x.verdict == f.DROPPED)
        allowed = next(x for x in flows if x.verdict == f.FORWARDED)
        (policy,) = denied.ingress_denied_by
        assert (policy.kind, policy.namespace, policy.name) == (
            "CiliumNetworkPolicy",
            "default",
            "no-probes",
        )
        assert denied.drop_reason_desc == f.POLICY_DENY
        assert list(denied.policy_log) == ["probes are not answered"]
        assert not denied.HasField("is_reply")
        assert [p.name for p in allowed.ingress_allowed_by] == ["no-probes"]
        assert denied.source.cluster_name == C1
        assert target["metadata"]["name"] in labs.wait_until(
            "an event of the pod",
            lambda: world.lab.kubectl(
                *("get", "events", "--field-selector", "reason=PacketDrop"), cluster=C2
            ),
        )
    finally:
        world.lab.kubectl("delete", "cnp", "no-probes", cluster=C2)


@pytest.mark.timeout(600)
def test_an_observer_knows_the_nodes_of_the_mesh_and_its_death_hurts_nobody(world: World) -> None:
    """Peers of both clusters; killed, it comes back with new flows, and no request fails."""
    node = world.node_of(world.pod(C1, "x-wing"))

    async def peers() -> dict[str, str]:
        found: dict[str, str] = {}
        path = node.root / "run/cilium/hubble.sock"
        async with asking(path) as stub, asyncio.timeout(90):
            async for told in stub.notify(peer_pb2.NotifyRequest()):
                found[told.name] = told.address
                if len(found) == len(world.lab.topology.nodes):
                    return found
        return found

    expected = {
        f"{name.partition('-')[0]}/{name}" for name in (n.name for n in world.lab.topology.nodes)
    }
    found = asyncio.run(peers())
    assert found.keys() == expected
    assert all(address.endswith(":4244") for address in found.values())
    since = time.time()
    with world.mesh.stream("rebel-base") as stream:
        stream.until("requests", lambda: len(stream.requests) > 20)
        hubbles = [pid for pid in host.processes_of(world.lab.name) if _is_hubble(pid)]
        assert len(hubbles) == len(world.lab.topology.nodes)
        for pid in hubbles:
            os.kill(pid, signal.SIGKILL)
        killed = len(stream.requests)
        stream.until("more requests", lambda: len(stream.requests) > killed + 80)
        assert stream.failed == []
    flows = labs.wait_until("it is back", lambda: _asked(world, node, since), 120, 0.5)
    assert flows


def _is_hubble(pid: int) -> bool:
    try:
        return b"isthmus-hubble" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return False


def _asked(world: World, node: Node, since: float) -> list[f.Flow]:
    try:
        flows = world.ask(node, number=1000)
    except Exception as error:  # nobody listens yet
        assert "UNAVAILABLE" in str(error)  # noqa: PT017
        return []
    return [x for x in flows if x.source.pod_name and x.time.ToNanoseconds() > since * 1e9]


def connected(world: World, number: int = 4) -> list[Json]:
    """The relay's nodes once so many are connected."""

    def look() -> list[Json]:
        code, said = world.told("list", "nodes", "-o", "json")
        nodes: list[Json] = [] if code else json.loads(said)["nodes"]  # it may just begin
        well = [node for node in nodes if node["state"] == "NODE_CONNECTED"]
        return nodes if len(well) == number else []

    found: list[Json] = labs.wait_until(f"{number} nodes are connected", look, 120, 0.5)
    return found


@pytest.mark.timeout(500)
def test_one_relay_shows_the_whole_mesh(world: World) -> None:
    """Found by `hubble-peer`, asked with certificates of two authorities, joined on one line."""
    nodes = connected(world)
    names = {f"{n.name.partition('-')[0]}/{n.name}" for n in world.lab.topology.nodes}
    assert {node["name"] for node in nodes} == names
    for node in nodes:
        cluster, _, name = node["name"].partition("/")
        tls = {"enabled": True, "server_name": f"{name}.{cluster}.hubble-grpc.cilium.io"}
        assert node["tls"] == tls
        assert node["address"].endswith(":4244")

    def status() -> bool:
        said = world.asked("status")
        assert "Connected Nodes: 4/4" in said
        assert "cluster1: 2/2" in said
        assert "cluster2: 2/2" in said
        return True

    labs.wait_until("all are told of", status)
    far = world.mesh.isthmus("hubble", "status", "-P", "--kube-context", C1)  # from outside
    assert "Connected Nodes: 4/4" in far

    def namespaces() -> set[tuple[str, ...]]:
        listed = world.asked("list", "namespaces", "-o", "wide").splitlines()
        return {tuple(line.split()) for line in listed}

    # Of those in which something was heard of: not so much, where observers have just begun.
    wanted = {("default", C1), ("default", C2), ("kube-system", C2)}
    labs.wait_until("namespaces", lambda: wanted <= namespaces())
    client, server = world.pod(C1, "x-wing"), world.pod(C2, "x-wing")
    world.curl(f"http://{server['status']['podIP']}/")
    pods = tuple(f"default/{pod['metadata']['name']}" for pod in (client, server))
    words = ("observe", "--from-pod", pods[0], "--to-pod", pods[1], "--last", "100")

    def joined() -> str:
        lines = world.asked(*words, "--joined").splitlines()
        return next((line for line in lines if pods[0] in line and "unseen" not in line), "")

    line = labs.wait_until("both views on one line", joined, 90, 0.5)
    assert f"{C1}/{client['spec']['nodeName']}" in line
    assert f"{C2}/{server['spec']['nodeName']}" in line
    flows = [json.loads(text) for text in world.asked(*words, "-o", "json").splitlines()]
    times = [flow["time"] for flow in flows if "flow" in flow]
    assert times == sorted(times)
    code, told = world.lab.exec(
        f"{C1}/tools", "isthmus", "hubble", "status", "--server", nodes[0]["address"], "--tls",
        "--tls-allow-insecure", "--timeout", "3s",
    )  # fmt: skip
    assert code == 1  # no certificate, no flows
    assert "certificate required" in told or "connection" in told


@pytest.mark.timeout(600)
def test_the_ui_draws_the_map_of_both_clusters(world: World) -> None:
    """Its front end's polls, before the relay that is reached through the API server."""
    connected(world)
    where = ("-P", "--kube-context", C1)
    with hubble_ui.running(world.mesh.environment, *where) as base:
        world.curl(f"http://{world.pod(C2, 'rebel-base')['status']['podIP']}/")
        link = ("x-wing", "rebel-base", 80, "FORWARDED")
        asyncio.run(hubble_ui.wait_for_link(base, "default", link))


@pytest.mark.timeout(500)
def test_a_dead_node_is_told_and_hurts_nobody(world: World) -> None:
    """Frozen, killed and back again: the others' flows come, and the node's once it is back."""
    connected(world)
    near, far = world.pod(C1, "x-wing"), world.node_of(world.pod(C2, "x-wing"))
    name, pod = f"{C2}/{far.name}", f"default/{near['metadata']['name']}"
    since = time.time()
    world.curl(f"http://{world.pod(C1, 'rebel-base')['status']['podIP']}/")
    world.seen(world.node_of(near), lambda x: f"default/{x.source.pod_name}" == pod, since)
    pid = next(p for p in host.processes_of(world.lab.name) if _is_hubble(p) and _lives_on(p, far))
    os.kill(pid, signal.SIGSTOP)
    try:
        words = ("observe", "--last", "20", "--from-pod", pod, "--server", RELAY)
        code, said = world.lab.exec(f"{C1}/tools", "isthmus", "hubble", *words)
        assert code == 0
        assert re.search(rf'Error "no (sign|answer).*" on 1 nodes: {name}', said)
        assert pod in said
    finally:
        os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    killed = time.time()

    def is_new() -> bool:
        (node,) = [node for node in connected(world) if node["name"] == name]
        return int(node["uptime_ns"]) / 1e9 < time.time() - killed

    labs.wait_until("another one is asked", is_new, 120, 0.5)

    def flows() -> str:
        world.curl(f"http://{world.pod(C2, 'x-wing')['status']['podIP']}/")
        return world.asked("observe", "--last", "5", "--node-name", name)

    labs.wait_until("its flows", flows, 90, 0.5)


def _lives_on(pid: int, node: Node) -> bool:
    return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(f"/run/netns/{node.netns}").st_ino


@pytest.mark.timeout(500)
def test_hubble_is_taken_away_and_put_back(world: World) -> None:
    """`hubble disable` and `enable` in the second cluster: its nodes go from the relay and come
    again; requests between the clusters never fail."""
    connected(world)
    with world.mesh.stream("rebel-base") as stream:
        stream.until("requests", lambda: len(stream.requests) > 20)
        assert "is disabled" in world.mesh.isthmus("hubble", "disable", "--context", C2)
        labs.wait_until("they are away", lambda: "cluster2: 0/2" in world.asked("status"), 120, 0.5)
        said = world.mesh.isthmus("hubble", "enable", "--context", C2, "--wait")
        assert "Everything is ready" in said
        connected(world)
        assert stream.failed == []


@pytest.mark.timeout(900)
def test_no_query_of_dashboards_is_empty(world: World) -> None:
    """Prometheus reads every page of the mesh; with traffic each panel of ours has something to
    show, and Cilium's find every family, label and value that they read."""
    targets = pages(world)
    near = world.node_of(world.pod(C1, "x-wing"))
    with prometheus(near.netns, targets) as running:
        wait_up(running, len(targets), 150)
        with Talk(world):
            empty = [found for found in queries() if found[:2] not in QUIET]
            assert len(empty) > 100
            empty += [("of Cilium", "", selector) for selector in cilium_dashboards.selectors()]
            deadline = time.monotonic() + 240
            socket = ("--unix-socket", str(near.root / "run/cilium/cilium.sock"))
            replaced = 0.0
            while empty := [found for found in empty if not running.query(found[2])]:
                assert time.monotonic() < deadline, "\n".join(map(str, empty))
                if time.monotonic() > replaced + 10:
                    replaced = time.monotonic()
                    for pod in world.mesh.pods(C2, "name=x-wing"):
                        name = pod["metadata"]["name"]
                        world.lab.kubectl("delete", "pod", name, "--wait=false", cluster=C2)
                for path in ("healthz", "endpoint"):
                    ask = ("curl", "-s", "-o", "/dev/null", *socket, f"http://x/v1/{path}")
                    subprocess.run(ask, check=True)
                time.sleep(1)
        assert [name for name in cilium_dashboards.ABSENT if running.query(name)] == []
        denied = 'sum(hubble_drop_total{reason="POLICY_DENY"})'
        assert running.query(denied)[0] > 0
        # What proxies told is told as it was: one answer in five failed.
        failed = 'sum(hubble_http_requests_total{status="503",reporter="client"})'
        all_ = 'sum(hubble_http_requests_total{reporter="client"})'
        share = running.query(f"{failed} / {all_}")[0]
        assert share == pytest.approx(0.2, abs=0.1)
        exported = world.node_of(world.pod(C2, "rebel-base")).root / "run/cilium/hubble/events.log"
        whole = exported.read_text().rpartition("\n")[0]  # the last line may be under way
        flows = [json.loads(line)["flow"] for line in whole.splitlines()]
        assert {flow["verdict"] for flow in flows} == {"DROPPED"}
    world.lab.kubectl("delete", "cnp", "no-probes", "--ignore-not-found", cluster=C2)
    world.lab.kubectl("delete", "netpol", "one-port", "--ignore-not-found", cluster=C1)
