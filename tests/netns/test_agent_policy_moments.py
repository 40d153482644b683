"""What an agent's policies do in moments that are not calm: switches of settings, kills, full maps,
and trying out. Packets between pods of a node and from another cluster's store."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datapath import inspect
from model.policy_map import Direction, PolicyKey
from reconcile.tasks import TaskGroup
from tests.support.agent import (
    AgentNode,
    RemoteCluster,
    TestPod,
    drop,
    put,
    remote_cluster,
    traffic,
    until,
)
from tests.support.agent_policy import (
    POLICIES,
    REMOTE_IDENTITY,
    REMOTE_NODE,
    REMOTE_POD,
    isthmus,
    kernel_ipcache,
    kernel_rows,
    number,
    only_friend,
    policy,
    reaches,
    refused,
)
from tests.support.hubble import observing
from tests.support.hubble_process import hubble
from tests.support.nodes import Process

pytestmark = pytest.mark.root

IN = Direction.INGRESS
PODS = ("server", "friend", "stranger")


@pytest.fixture
async def beta(node: AgentNode) -> AsyncIterator[RemoteCluster]:
    async with remote_cluster(node) as found:
        await found.add_node("m1", REMOTE_NODE, "10.213.1.0/24")
        yield found


async def begin(node: AgentNode, **flags: str) -> dict[str, TestPod]:
    """A running agent with a server and two clients."""
    node.flags |= {key.replace("_", "-"): value for key, value in flags.items()}
    node.start()
    await node.ready()
    return {name: await node.add(node.pod(name, {"app": name})) for name in PODS}


async def again(node: AgentNode, **flags: str) -> None:
    """Killed, and started with other settings."""
    node.kill()
    node.flags |= {key.replace("_", "-"): value for key, value in flags.items()}
    node.start()
    await node.ready()


def steady(client: TestPod, server: TestPod) -> Process:
    """A connection that ends with an error when nothing comes back for five seconds."""
    return traffic(client.namespace, "steady-tcps", server.address, 8080, 0.02, 1, 5).ready()


def errors(found: Process) -> list[str]:
    return list(found.finish()[0]["errors"])


async def shut(node: AgentNode, pod: TestPod) -> None:
    endpoint = await number(node, pod)
    await until(lambda: PolicyKey(0, IN) not in kernel_rows(node, endpoint), "shut")


# Settings


async def test_modes_change_without_a_gap(node: AgentNode) -> None:
    """From ``default`` to ``never`` and back: a flow that is allowed in both loses nothing, one
    that is forbidden passes with the first and ends again with the second."""
    pods = await begin(node)
    server, friend, stranger = (pods[name] for name in PODS)
    spec = only_friend("5000")
    spec["ingress"][0]["toPorts"][0]["ports"][0]["protocol"] = "UDP"
    policy(node, "server", spec)
    listener = traffic(server.namespace, "serve-udp", server.address, 5000, "server").ready()
    await shut(node, server)
    for mode in ("never", "default"):
        allowed = traffic(friend.namespace, "steady-udp", server.address, 5000, 0.004).ready()
        free = traffic(stranger.namespace, "steady-udp", friend.address, 5000, 0.05).ready()
        await again(node, enable_policy=mode)
        seen = allowed.finish()
        assert seen["sent"] > 100
        assert seen["answered"] == seen["sent"], mode
        free.kill()
        tried = refused if mode == "default" else reaches
        assert tried(stranger, server, "udp", 5000), mode
    # A kill in the middle of the change opens nothing that rows have shut already.
    flood = traffic(stranger.namespace, "steady-udp", server.address, 5000, 0.0005).ready()
    (node.state / "state" / "policy-mode").write_text("never")
    await again(node)
    found = flood.finish()
    assert found["sent"] > 500
    assert found["answered"] == 0
    listener.kill()


@pytest.mark.parametrize("keeps", ["false", "true"])
async def test_connections_that_are_forbidden_now(node: AgentNode, keeps: str) -> None:
    """Are cut with their next packet; with the setting they stay, and new ones do not come."""
    pods = await begin(node, policy_keep_connections=keeps)
    server, friend, stranger = (pods[name] for name in PODS)
    listener = server.serve()
    old, other = steady(stranger, server), steady(friend, server)
    policy(node, "server", only_friend())
    await shut(node, server)
    await until(lambda: refused(stranger, server), "in force")
    await asyncio.sleep(5.5)  # longer than the old connection waits for an answer
    seen = old.finish()
    assert bool(seen[0]["errors"]) is (keeps == "false"), seen
    assert errors(other) == []
    listener.kill()


# Trying out


async def test_audit_from_the_annotation_to_the_screen(node: AgentNode, tmp_path: Path) -> None:
    """What only a policy in audit forbids passes, and `hubble observe` calls it AUDIT; the same
    policy in earnest is DENIED there, and the other policy enforces all the while."""
    pods = await begin(node, enable_hubble="true")
    server, friend, stranger = (pods[name] for name in PODS)
    listener, other = server.serve(), friend.serve()
    closed = {"endpointSelector": {"matchLabels": {"app": "friend"}}, "ingress": [{}]}
    policy(node, "closed", closed)
    policy(node, "server", only_friend(), {"policy.isthmus.io/audit": "true"})
    await shut(node, friend)
    socket = tmp_path / "hubble.sock"

    async def observed(verdict: str, *more: str) -> list[dict[str, Any]]:
        done = await isthmus(
            node, "hubble", "observe", "--server", f"unix://{socket}", "--last", "200",
            "--type", "policy-verdict", "--verdict", verdict, "-o", "jsonpb", *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return [json.loads(line)["flow"] for line in done.out.splitlines()]

    async with hubble(node) as source, observing(source, socket):
        await until(lambda: source.names.synced, "names")
        assert reaches(stranger, server), "audit forbids nothing"
        assert refused(stranger, friend), "the other policy does"

        async def audited() -> Any:
            return await observed("AUDIT")

        found = await until(audited, "the verdict")
        assert {f["destination"]["pod_name"] for f in found} == {"server"}
        assert found[0]["source"]["pod_name"] == "stranger"
        assert found[0]["traffic_direction"] == "INGRESS"
        shown = await isthmus(
            node, "hubble", "observe", "--server", f"unix://{socket}", "--last", "200",
            "--verdict", "AUDIT",
        )  # fmt: skip
        assert "AUDIT" in shown.out
        policy(node, "server", only_friend())
        await until(lambda: refused(stranger, server), "in earnest")

        async def dropped() -> Any:
            return await observed("DROPPED", "--to-pod", "default/server")

        denied = await until(dropped, "the verdict")
        assert denied[0]["source"]["pod_name"] == "stranger"
    listener.kill()
    other.kill()


# Kills


async def test_labels_of_the_last_seconds_survive_a_kill(
    node: AgentNode, beta: RemoteCluster
) -> None:
    """An identity of another cluster that has just been told counts after a kill as before it, with
    its cluster silent; so does one that has just gone."""
    pods = await begin(node)
    policy(node, "server", only_friend())
    endpoint = await number(node, pods["server"])
    gone, key = REMOTE_IDENTITY + 1, PolicyKey(REMOTE_IDENTITY, IN, 6, 8080, 24)
    await beta.add_identity(gone, app="friend")
    beta.connect()
    await until(lambda: key._replace(identity=gone) in kernel_rows(node, endpoint), "the first")
    kept = node.state / "state" / "remote-clusters" / "beta.json"
    await until(lambda: kept.exists() and str(gone) in kept.read_text(), "it is kept")
    await beta.add_identity(REMOTE_IDENTITY, app="friend")
    await beta.add_pod(REMOTE_POD, REMOTE_NODE, REMOTE_IDENTITY)
    address = f"{REMOTE_POD}/32"
    await until(lambda: kernel_ipcache(node).get(address) == REMOTE_IDENTITY, "it is known")
    assert str(REMOTE_IDENTITY) not in kept.read_text(), "too early for its file"
    node.kill()
    await beta.close()
    node.start()
    await node.ready()
    await asyncio.sleep(0.3)
    assert kernel_ipcache(node)[address] == REMOTE_IDENTITY
    assert key in kernel_rows(node, endpoint)
    await until(
        lambda: str(REMOTE_IDENTITY) in kept.read_text(), "the journal becomes part of the file"
    )


async def test_labels_that_are_lost_open_nothing(node: AgentNode, beta: RemoteCluster) -> None:
    """Were the files lost: whoever has the identity is nobody before the row that denies him goes;
    at no moment is there an address of his without it."""
    pods = await begin(node)
    spec = {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "friend"}}]}],
        "enableDefaultDeny": {"ingress": False},
    }
    policy(node, "server", spec)
    endpoint = await number(node, pods["server"])
    beta.connect()
    await beta.add_identity(REMOTE_IDENTITY, app="friend")
    await beta.add_pod(REMOTE_POD, REMOTE_NODE, REMOTE_IDENTITY)
    address, key = f"{REMOTE_POD}/32", PolicyKey(REMOTE_IDENTITY, IN)
    await until(lambda: kernel_ipcache(node).get(address) == REMOTE_IDENTITY, "it is known")
    assert key in kernel_rows(node, endpoint)
    node.kill()
    await beta.close()
    for path in (node.state / "state" / "remote-clusters").glob("*"):
        path.unlink()
    node.start()
    async with TaskGroup() as tasks:
        starting = tasks.create_task(node.ready())
        while not starting.done():
            rows = kernel_rows(node, endpoint)
            # The address is read after its row: whoever has it still must have the row still.
            has_it = kernel_ipcache(node).get(address) == REMOTE_IDENTITY
            assert key in rows or not has_it
            await asyncio.sleep(0)
    await until(lambda: kernel_ipcache(node).get(address) == 0, "nobody")
    await until(lambda: key not in kernel_rows(node, endpoint), "forgotten")


# Full maps


async def test_a_full_ipcache_closes_what_it_would_open(node: AgentNode) -> None:
    """Denied prefixes that find no room would be the world, which is allowed: the pod is closed and
    the agent, `policy list` and the endpoint say why. Others go on. With room it is open again."""
    pods = await begin(node, bpf_ipcache_map_max="24")
    server, friend, stranger = (pods[name] for name in PODS)
    listener = server.serve()
    denied = {
        "endpointSelector": {"matchLabels": {"app": "friend"}},
        "egress": [{"toEntities": ["world"]}, {"toEndpoints": [{}]}],
        "egressDeny": [{"toCIDR": [f"198.51.100.{last}/32" for last in range(1, 60)]}],
    }
    policy(node, "out", denied)

    async def told() -> bool:
        messages = (await node.get("healthz"))["messages"]
        return any("bpf-ipcache-map-max" in text and "nothing passes" in text for text in messages)

    await until(told, "the agent says it")
    endpoint = await number(node, friend)
    await until(
        lambda: all(key.identity == 0 for key in kernel_rows(node, endpoint)), "closed rows"
    )
    assert refused(friend, server)
    assert reaches(stranger, server)
    assert (await node.get(f"endpoint/{endpoint}"))["status"]["health"]["policy"] == "Failure"
    listed = await isthmus(node, "policy", "list")
    assert "default/friend is closed" in listed.out
    denied["egressDeny"] = [{"toCIDR": ["198.51.100.1/32"]}]
    policy(node, "out", denied)
    await until(lambda: reaches(friend, server), "there is room")
    listener.kill()


@pytest.mark.timeout(300)
async def test_a_map_of_16384_rows(node: AgentNode) -> None:
    """That many are written and hold; one identity more closes the pod, with its name in the
    agent's words and in `policy list`; without it all is as before."""
    pods = await begin(node)
    server, friend = pods["server"], pods["friend"]
    listener = server.serve()
    ports = [{"port": str(8080 + 2 * n), "protocol": "TCP"} for n in range(400)]
    items = [{"ports": ports[n : n + 40]} for n in range(0, 400, 40)]
    spec = {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchExpressions": [{"key": "many", "operator": "Exists"}]}],
                "toPorts": items,
            },
            {"fromEndpoints": [{"matchLabels": {"app": "friend"}}]},
        ],
    }

    def more(last: int) -> None:
        labels = {"k8s:many": f"m{last}", "k8s:io.kubernetes.pod.namespace": "default"}
        labels["k8s:io.cilium.k8s.policy.cluster"] = "alpha"
        body = {"metadata": {"name": str(70_000 + last)}, "security-labels": labels}
        put(node.fake, "ciliumidentities", body)

    for last in range(40):  # 16,000 rows, and the few that everybody has
        more(last)
    policy(node, "server", spec)
    endpoint = await number(node, server)
    await until(lambda: len(kernel_rows(node, endpoint)) > 16_000, "the rows", 60)
    assert len(kernel_rows(node, endpoint)) <= 16_384
    await until(lambda: reaches(friend, server), "open")  # its row may be among the last
    more(40)
    await until(lambda: refused(friend, server), "closed", 60)

    async def told() -> bool:
        messages = (await node.get("healthz"))["messages"]
        return any(f"endpoint {endpoint}" in m and "a map holds 16384" in m for m in messages)

    await until(told, "why", 60)
    listed = json.loads((await isthmus(node, "policy", "list", "-o", "json")).out)
    assert [c["endpoint"] for c in listed[0]["closed"]] == ["default/server"]
    assert "holds 16384" in listed[0]["closed"][0]["reason"]
    assert (await node.get(f"endpoint/{endpoint}"))["status"]["health"]["policy"] == "Failure"
    await again(node)
    assert refused(friend, server), "after a restart, too"
    drop(node.fake, "ciliumidentities", "", "70040")
    # Its rows stay for five minutes after the last word about it, whoever asks.
    drop(node.fake, POLICIES, "default", "server")
    await until(lambda: reaches(friend, server), "open without the policy", 60)
    assert inspect.policies(node.bpf_root / "isthmus")
    listener.kill()
