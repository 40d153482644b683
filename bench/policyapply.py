"""From a policy's creation to its rows in the kernel, end to end, on a node full of pods.

30 pods with labels of their own on one node of a lab, 1,000 policies in force, each selecting one
of the pods and its own peer. *Apply*: the moment before the API server is asked to create one more
policy, which selects all 30, to the moment its rows stand in all 30 maps. *Remove*: until they are
gone. Polled every half millisecond.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.figure import Figure, percentile
from bench.lab import joined_lab, pins
from datapath import inspect
from datapath import pins as pinned
from datapath.encoding import number_key, parse_number_key
from datapath.kernel_table import KernelTable
from datapath.map_names import POLICY
from datapath.policy_encoding import key as row_key
from datapath.syscall import map_by_id
from kind import story
from kube import resources
from kube.config import connect
from kube.port import Client
from model.policy_map import Direction, PolicyKey
from reconcile.tasks import TaskGroup

PODS = 30
POLICIES = 1_000
CHANGES = 100
PARALLEL = 16
POLL_S = 0.0005
LIMIT_S = 20.0
NODE = "cluster1-worker"
_POLICIES = resources.untyped(resources.CILIUM_POLICIES)
_PODS = resources.untyped(resources.PODS)
_IDENTITIES = resources.untyped(resources.CILIUM_IDENTITIES)


def measure() -> Iterator[Figure]:
    """Percentiles in milliseconds."""
    with joined_lab() as (mesh, lab):
        maps = Maps(pins(lab, NODE))
        yield from asyncio.run(_measure(mesh, maps))


class Maps:
    """The policy maps of a node, looked into by key."""

    def __init__(self, pin_dir: Path) -> None:
        self.pin_dir = pin_dir
        fd = pinned.open_pinned(pinned.map_pin(pin_dir, POLICY))
        assert fd is not None
        self._table = KernelTable(fd, POLICY)

    def holding(self, endpoints: Sequence[int], row: PolicyKey) -> int:
        """How many of the endpoints have a row."""
        return sum(self._has(number, row_key(row)) for number in endpoints)

    def _has(self, number: int, key: bytes) -> bool:
        found = self._table.get(number_key(number))
        if found is None:
            return False
        rows = KernelTable(map_by_id(parse_number_key(found)), "rows")
        try:
            return rows.get(key) is not None
        finally:
            rows.close()


async def _measure(mesh: story.Mesh, maps: Maps) -> list[Figure]:
    async with await connect(mesh.environment["KUBECONFIG"], story.C1) as api:
        await _each(api, _PODS, [_pod(n) for n in range(PODS)])
        peer = await _identity(api, "x-wing")
        endpoints = await _endpoints(mesh, maps)
        start = time.monotonic()
        await _each(api, _POLICIES, [_policy(f"many-{n}", _one_pod(n)) for n in range(POLICIES)])
        filled_s = time.monotonic() - start
        await _judged(api)
        applied, removed = [], []
        for change in range(CHANGES):
            port = 20_000 + change
            row = PolicyKey(peer, Direction.INGRESS, 6, port, 24)
            body = _policy(f"one-{change}", _all_pods(port))
            begun = time.monotonic()
            await api.create(_POLICIES, body, "default")
            applied.append(await _until(maps, endpoints, row, len(endpoints), begun))
            begun = time.monotonic()
            await api.delete(_POLICIES, f"one-{change}", "default")
            removed.append(await _until(maps, endpoints, row, 0, begun))
    detail = {"pods": PODS, "policies": POLICIES, "samples": CHANGES}
    rows = max(len(found) for found in inspect.policies(maps.pin_dir).values())
    return [
        Figure(f"policy.{name}_{word}_ms", round(1000 * percentile(values, share), 1), "ms", more)
        for name, values, more in (
            ("apply", applied, detail | {"rows_of_a_pod": rows, "creating_s": round(filled_s, 1)}),
            ("remove", removed, detail),
        )
        for word, share in (("p50", 0.5), ("p99", 0.99))
    ]


async def _until(
    maps: Maps, endpoints: Sequence[int], row: PolicyKey, count: int, begun: float
) -> float:
    while (found := maps.holding(endpoints, row)) != count:
        if time.monotonic() - begun > LIMIT_S:
            raise TimeoutError(f"{found} of {len(endpoints)} maps have {row}, not {count}")
        await asyncio.sleep(POLL_S)
    return time.monotonic() - begun


async def _each(api: Client, kind: Any, bodies: Sequence[dict[str, Any]]) -> None:
    left = iter(bodies)

    async def work() -> None:
        for body in left:
            await api.create(kind, body, "default")

    async with TaskGroup() as tasks:
        for _ in range(PARALLEL):
            tasks.create_task(work())


async def _judged(api: Client) -> None:
    """Wait until the operator has written its verdict on each: from then on all is quiet."""
    deadline = time.monotonic() + 120
    while any("status" not in policy for policy in await api.list(_POLICIES)):
        if time.monotonic() > deadline:
            raise TimeoutError("the operator has not judged all policies")
        await asyncio.sleep(1)


async def _identity(api: Client, name: str) -> int:
    found = await api.list(_IDENTITIES)
    return next(
        int(i["metadata"]["name"]) for i in found if i["security-labels"].get("k8s:name") == name
    )


async def _endpoints(mesh: story.Mesh, maps: Maps) -> list[int]:
    """The numbers of the pods' endpoints, once all have their rows."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(story.StoryError):
            found = [
                e["id"]
                for e in mesh.agent(NODE, "endpoint", "list")
                if e["status"]["external-identifiers"]["k8s-pod-name"].startswith("bench-")
            ]
            if len(found) == PODS and found and set(found) <= set(inspect.policies(maps.pin_dir)):
                return found
        await asyncio.sleep(1)
    raise TimeoutError(f"the {PODS} pods did not start")


def _pod(number: int) -> dict[str, Any]:
    container = {"name": "sleep", "image": "python", "command": ["sleep", "infinity"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"bench-{number}", "labels": {"bench": "pod", "n": str(number)}},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def _policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": meta,
        "spec": spec,
    }


def _rule(peer: dict[str, str], port: int) -> dict[str, Any]:
    ports = [{"port": str(port), "protocol": "TCP"}]
    return {"fromEndpoints": [{"matchLabels": peer}], "toPorts": [{"ports": ports}]}


def _one_pod(number: int) -> dict[str, Any]:
    peer = {"n": str((number + 7) % PODS)}
    return {
        "endpointSelector": {"matchLabels": {"n": str(number % PODS)}},
        "ingress": [_rule(peer, 1000 + number)],
    }


def _all_pods(port: int) -> dict[str, Any]:
    return {
        "endpointSelector": {"matchLabels": {"bench": "pod"}},
        "ingress": [_rule({"name": "x-wing"}, port)],
    }
