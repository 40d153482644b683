"""What agents were told about policy: by this node's socket, or in their pods. Adapter.

On a node the agent's socket is asked. Elsewhere the agent of the node in question is, by the API
server of its cluster; clusters are found by their names among the contexts of the kubeconfig.
"""

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from cli import cluster, pod_names, rest
from cli.mesh_ask import AGENT, run_json
from kube import resources
from kube.config import ConfigError, default_kubeconfig
from kube.port import ApiError, Client
from model.address import parse_prefix
from policy.facts import Facts, from_json
from reconcile.tasks import TaskGroup

SAY = ("cilium-dbg", "policy", "facts")
JSON = ("-o", "json")


@dataclass(frozen=True, slots=True)
class Where:
    """The options that say whom to ask. ``host``: a socket, or empty."""

    context: str
    kubeconfig: str
    namespace: str
    host: str

    def socket(self) -> str:
        """The agent's socket to ask, or empty: ask the API server."""
        if self.host:
            return self.host
        if self.context or self.kubeconfig:
            return ""
        given = os.environ.get(rest.SOCKET_VARIABLE) or rest.DEFAULT_SOCKET
        return given if Path(given.removeprefix("unix://")).exists() else ""


@dataclass(slots=True)
class Cluster:
    """One cluster, through its API server. ``name`` is what its agents call it."""

    api: Client
    namespace: str
    name: str
    context: str
    _said: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict, compare=False)

    async def facts(self, node: str = "") -> Facts:
        """What the agent of a node was told; of any node when none is named."""
        return decoded(await self._ask(node, *SAY))

    async def _ask(self, node: str, *argv: str) -> Any:
        """An agent is asked the same once."""
        if (node, argv) not in self._said:
            agent = await self._agent(node)
            self._said[node, argv] = await run_json(self.api, self.namespace, agent, argv)
        return self._said[node, argv]

    async def all_facts(self) -> list[Facts]:
        """What every agent was told."""
        pods = sorted((await self._agents()).values())
        async with TaskGroup() as tasks:
            asked = [
                tasks.create_task(run_json(self.api, self.namespace, pod, SAY)) for pod in pods
            ]
        return [decoded(task.result()) for task in asked]

    async def addresses(self, node: str) -> list[dict[str, Any]]:
        """Every address that a node knows: whose it is."""
        found: list[dict[str, Any]] = await self._ask(node, "cilium-dbg", "ip", "list", *JSON)
        return found

    async def identity_of(self, address: str, node: str) -> int | None:
        """Whose an address is at a node; ``None``: nobody's that is known."""
        row = longest(await self.addresses(node), address)
        return None if row is None else int(row["identity"])

    async def services(self, node: str) -> list[dict[str, Any]]:
        """Every frontend that a node has, with its backends."""
        found: list[dict[str, Any]] = await self._ask(node, "cilium-dbg", "service", "list", *JSON)
        return found

    async def node_address(self, name: str) -> str:
        """A node's first internal address. Raises ``click.ClickException``."""
        try:
            node = await self.api.get(resources.untyped(resources.NODES), name, "")
        except ApiError as error:
            raise click.ClickException(f"node {name} of cluster {self.name}: {error}") from error
        listed = (node.get("status") or {}).get("addresses") or ()
        own = [str(a["address"]) for a in listed if a.get("type") == "InternalIP"]
        if not own:
            raise click.ClickException(f"node {name} of cluster {self.name} has no address yet")
        return own[0]

    async def pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        """A pod, as ``pod_names.pick`` finds it. Raises ``click.ClickException``."""
        pods = await self.api.list(resources.untyped(resources.PODS), namespace)
        try:
            return pod_names.pick(pods, name)
        except LookupError as error:
            raise click.ClickException(
                f"pod {namespace}/{name} of cluster {self.name}: {error.args[0]}"
            ) from error

    async def _agents(self) -> dict[str, str]:
        pods = await self.api.list(
            resources.untyped(resources.PODS), self.namespace, label_selector=AGENT
        )
        found = {p["spec"].get("nodeName", ""): p["metadata"]["name"] for p in pods}
        if not found:
            raise click.ClickException(
                f"cluster {self.name} has no agents: is Isthmus installed in {self.namespace}?"
            )
        return found

    async def _agent(self, node: str) -> str:
        found = await self._agents()
        if node and node not in found:
            raise click.ClickException(f"node {node} of cluster {self.name} has no agent")
        return found[node] if node else found[min(found)]


def decoded(said: Any) -> Facts:
    """Raises ``click.ClickException``."""
    try:
        return from_json(said)
    except (KeyError, TypeError, ValueError) as error:
        raise click.ClickException(f"the agent is of another version: {error!r}") from error


def longest(found: Iterable[dict[str, Any]], address: str) -> dict[str, Any] | None:
    """The row of the longest prefix around an address."""
    own = parse_prefix(f"{address}/{128 if ':' in address else 32}")
    around = [(parse_prefix(row["cidr"]), row) for row in found]
    fits = [row for row in around if row[0].version == own.version and row[0].covers(own)]
    return max(fits, key=lambda row: row[0].length)[1] if fits else None


@asynccontextmanager
async def clusters(where: Where) -> AsyncIterator["Clusters"]:
    """Clusters by name, opened as they are asked for."""
    async with AsyncExitStack() as stack:
        yield Clusters(where, stack)


class Clusters:
    """Connections to the contexts of a kubeconfig, by the names of their clusters."""

    def __init__(self, where: Where, stack: AsyncExitStack) -> None:
        self._where, self._stack = where, stack
        self._found: dict[str, Cluster] = {}

    async def here(self) -> Cluster:
        """The cluster of ``--context``, or of the current context."""
        return await self._open(self._where.context)

    async def named(self, name: str) -> Cluster:
        """The cluster of that name. Raises ``click.ClickException`` with those that are there."""
        first = await self.here()
        if first.name == name:
            return first
        if name in self._found:
            return self._found[name]
        contexts = _contexts(self._where.kubeconfig)
        for context in sorted(contexts, key=lambda c: (c != name, name not in c, c)):
            # A context that does not answer, or is of another product, is none of ours.
            with suppress(ApiError, ConfigError, OSError, ValueError, TimeoutError):
                opened = await self._open(context)
                if opened.name == name:
                    return opened
        known = ", ".join(sorted(self._found))
        raise click.ClickException(
            f"no context of the kubeconfig is of cluster {name} (found: {known}): name another "
            "with --kubeconfig"
        )

    async def _open(self, context: str) -> Cluster:
        for known in self._found.values():
            if known.context == context:
                return known
        api = await self._stack.enter_async_context(cluster.client(self._where.kubeconfig, context))
        config = await cluster.read(api, "ConfigMap", "cilium-config", self._where.namespace)
        if config is None:
            place = f"context {context}" if context else "the current context"
            raise ValueError(
                f"{place}: no ConfigMap {self._where.namespace}/cilium-config: "
                "Isthmus is not installed there"
            )
        name = str((config.get("data") or {}).get("cluster-name", "default"))
        found = Cluster(api, self._where.namespace, name, context)
        self._found.setdefault(name, found)
        return found


def _contexts(kubeconfig: str) -> list[str]:
    import yaml

    names: list[str] = []
    for path in (kubeconfig or default_kubeconfig()).split(":"):
        with suppress(OSError):
            said = yaml.safe_load(Path(path).expanduser().read_text()) or {}
            names += [str(context["name"]) for context in said.get("contexts") or ()]
    return names


async def one_node(where: Where) -> Facts:
    """Of this node's agent, or of any agent of the cluster."""
    if socket := where.socket():
        return decoded(rest.get(socket, "policy/facts"))
    async with clusters(where) as found:
        return await (await found.here()).facts()


async def all_nodes(where: Where) -> list[Facts]:
    """Of this node's agent, or of every agent of the cluster."""
    if socket := where.socket():
        return [decoded(rest.get(socket, "policy/facts"))]
    async with clusters(where) as found:
        return await (await found.here()).all_facts()
