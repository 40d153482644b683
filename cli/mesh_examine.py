"""Looks at a cluster for the doctor: objects, clocks, agents, ways from nodes. Adapter."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from cli import cluster
from cli.mesh_ask import AGENT, ask_copies, run_json
from cli.mesh_examined import AgentSeen, Examined
from cli.mesh_facts import CLUSTERS_SECRET, KVSTOREMESH_SECRET, ClusterFacts, gather
from kube import resources
from kube.port import ApiError, Client
from model.address import Address, Prefix, parse_address, parse_prefix
from reconcile.tasks import TaskGroup

PROBED = 24  # agents asked, spread over a cluster
AT_ONCE = 8
WAY_TIMEOUT_S = 3
COMMON_CERTIFICATE = b"/common-etcd-client.crt"
_SERVICE_CIDRS = resources.unstructured(
    "networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False
)


async def examine(api: Client, context: str, namespace: str) -> Examined:
    """Everything but what agents see. Raises ``ValueError`` when Isthmus is not installed."""
    facts = await gather(api, context, namespace)
    config = await cluster.read(api, "ConfigMap", "cilium-config", namespace)
    nodes = await api.list(resources.untyped(resources.NODES))
    services = await api.list(resources.untyped(resources.SERVICES))
    before = time.time()
    server = await api.server_time()
    # The header is cut to seconds: it stands for the middle of one.
    skew = server.timestamp() + 0.5 - (before + time.time()) / 2 if server else None
    return Examined(
        facts=facts,
        settings=(config or {}).get("data") or {},
        node_addresses=_node_addresses(nodes),
        common=await _common(api, facts),
        service_cidrs=await _service_cidrs(api),
        service_addresses=_service_addresses(services),
        skew_s=skew,
        agents_wanted=await _wanted(api, namespace),
        copies=await ask_copies(api, namespace) if facts.kvstoremesh else (),
    )


async def with_agents(api: Client, seen: Examined, others: Sequence[ClusterFacts]) -> Examined:
    """The same with what its agents see, who also try the stores of clusters not yet connected."""
    places = [
        f"{address}:{other.port}"
        for other in others
        if other.name not in seen.facts.connected
        for address in other.addresses
    ]
    namespace = seen.facts.namespace
    found = await api.list(resources.untyped(resources.PODS), namespace, label_selector=AGENT)
    pods = [p for p in found if "deletionTimestamp" not in p["metadata"]]
    step = max(1, -(-len(pods) // PROBED))
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Mapping[str, Any]) -> AgentSeen:
        async with gate:
            return await _agent(api, namespace, pod, places)

    async with TaskGroup() as tasks:
        asked = [tasks.create_task(one(pod)) for pod in pods[::step]]
    wanted = seen.agents_wanted if step == 1 else 0  # not all were asked: none are missing
    return replace(seen, agents=tuple(t.result() for t in asked), agents_wanted=wanted)


async def _agent(
    api: Client, namespace: str, pod: Mapping[str, Any], places: Sequence[str]
) -> AgentSeen:
    name, node = pod["metadata"]["name"], str((pod.get("spec") or {}).get("nodeName") or "")
    seen = AgentSeen(name, node)
    try:
        status = await _run(api, namespace, name, ["cilium-dbg", "status", "-o", "json"])
        seen = replace(seen, status=status[0])
    except (OSError, ValueError) as error:
        return replace(seen, error=str(error))
    argv = ["cilium-dbg", "troubleshoot", "clustermesh", f"--timeout={WAY_TIMEOUT_S}s"]
    argv += ["-o", "json", *(f"--reach={place}" for place in places)]
    try:
        tried, skew = await _run(api, namespace, name, argv)
    except (OSError, ValueError):
        return seen  # an agent of another make: it answers, but tries nothing for us
    return replace(
        seen,
        device_mtu=int(tried.get("device-mtu") or 0),
        skew_s=_certain(float(tried["time"]) - skew[0], skew[1]) if "time" in tried else None,
        endpoints=tuple(tried.get("endpoints") or ()),
    )


async def _run(
    api: Client, namespace: str, pod: str, argv: Sequence[str]
) -> tuple[Any, tuple[float, float]]:
    """What a command printed as JSON; the middle of the time it took, and half of that time."""
    before = time.time()
    found = await run_json(api, namespace, pod, argv)
    after = time.time()
    return found, ((before + after) / 2, (after - before) / 2)


def _certain(skew: float, doubt: float) -> float:
    """The part of a skew that the time of asking does not explain."""
    if abs(skew) <= doubt:
        return 0.0
    return skew - doubt if skew > 0 else skew + doubt


def _node_addresses(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Address]:
    return {
        node["metadata"]["name"]: parse_address(item["address"])
        for node in nodes
        for item in (node.get("status") or {}).get("addresses") or []
        if item.get("type") == "InternalIP"
    }


def _service_addresses(services: Sequence[Mapping[str, Any]]) -> dict[str, Address]:
    found = {}
    for service in services:
        text = str(service["spec"].get("clusterIP") or "None")
        if text != "None":
            meta = service["metadata"]
            found[f"{meta['namespace']}/{meta['name']}"] = parse_address(text)
    return found


async def _common(api: Client, facts: ClusterFacts) -> frozenset[str]:
    source = KVSTOREMESH_SECRET if facts.kvstoremesh else CLUSTERS_SECRET
    entries = cluster.secret_data(await cluster.read(api, "Secret", source, facts.namespace))
    return frozenset(name for name, text in entries.items() if COMMON_CERTIFICATE in text)


async def _service_cidrs(api: Client) -> tuple[Prefix, ...]:
    """From the objects of newer versions, or from what kubeadm wrote down; else not known."""
    try:
        found = await api.list(_SERVICE_CIDRS)
        return tuple(parse_prefix(c) for item in found for c in item["spec"].get("cidrs") or [])
    except ApiError as error:
        if error.status not in (403, 404):
            raise
    config = await cluster.read(api, "ConfigMap", "kubeadm-config", "kube-system")
    text = ((config or {}).get("data") or {}).get("ClusterConfiguration", "")
    try:
        subnet = ((yaml.safe_load(text) or {}).get("networking") or {}).get("serviceSubnet") or ""
        return tuple(parse_prefix(part.strip()) for part in subnet.split(",") if part.strip())
    except (yaml.YAMLError, AttributeError, ValueError):
        return ()


async def _wanted(api: Client, namespace: str) -> int:
    try:
        found = await api.get(resources.untyped(resources.DAEMON_SETS), "cilium", namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        return 0
    return int((found.get("status") or {}).get("desiredNumberScheduled") or 0)
