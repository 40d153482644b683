"""Probes a few nodes of each remote cluster, and has the verdicts obeyed. Adapter.

A node is asked at its router address, which lies behind the tunnel; one that is silent there is
asked at its own address too, so that a broken tunnel can be told from a dead node. Who is judged
how is `mesh.data_path`'s; which clusters were down is kept on disk over a restart.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import msgspec

from agent.endpoint_store import write_atomically
from agent.mesh_state import MeshState
from mesh.data_path import DataPaths, PathState, Probe, Rules, Transition, rotate
from model.address import Address
from model.cluster import ClusterName
from model.node import CILIUM_INTERNAL_IP, Node, NodeName
from telemetry.metrics import Counter, Histogram

log = logging.getLogger("isthmus.agent.probing")

_OUT = (PathState.DOWN, PathState.RETURNING)


class Asking(Protocol):
    """`agent.echo.Echo`."""

    def close(self) -> None:
        """No more questions."""

    async def ask(self, addresses: Sequence[Address], /) -> dict[Address, float]:
        """Who answers, after how many seconds."""


class Prober:
    """The rounds, and what they have shown so far."""

    def __init__(
        self,
        mesh: MeshState,
        me: NodeName,
        rules: Rules,
        nodes: int,
        file: Path,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """``nodes``: how many of each cluster are asked in a round."""
        self._mesh, self._me, self._nodes, self._file = mesh, me, nodes, file
        self._clock, self._draw = clock, draw
        self._down = _read(file)
        self.paths = DataPaths(rules, self._down, clock())
        for cluster in self._down:
            mesh.services.set_share(cluster, 0)
        self._turn = int(draw() * (1 << 16))
        self._deaf = False
        self.probes = Counter(("target_cluster", "outcome"))
        self.changes = Counter(("target_cluster", "to"))
        self.latency = Histogram(("target_cluster",))

    async def run(
        self,
        connect: Callable[[], Asking],
        clusters: Callable[[], Iterable[ClusterName]],
        interval_s: float,
    ) -> None:
        """Until cancelled. ``clusters``: the members now."""
        try:
            opened = connect()
        except OSError as error:
            log.error('event=probes-off error="%s": remote clusters are not probed', error)
            return
        with closing(opened) as echo:
            await asyncio.sleep(interval_s * self._draw())
            while True:
                start_s = self._clock()
                await self.round(echo, clusters)
                await asyncio.sleep(max(0.0, start_s + interval_s - self._clock()))

    async def round(self, echo: Asking, clusters: Callable[[], Iterable[ClusterName]]) -> None:
        """Ask, judge, obey."""
        self._turn += 1
        own = self._mesh.own
        due = (name for name in clusters() if self.paths.is_due(name, self._turn))
        asked = {name: self._targets(name) for name in {*due, own}}
        probes = await self._ask(echo, asked)
        members = set(clusters())
        for cluster in set(self.paths) - members:
            self.paths.forget(cluster)
            self._mesh.services.set_share(cluster, 100)
        ours = probes.pop(own, [])
        probes = {name: found for name, found in probes.items() if name in members}
        sizes = {name: self._mesh.nodes.count(name) for name in probes}
        for change in self.paths.take(self._clock(), probes, sizes, ours):
            self._obey(change)
        self._tell_deafness([*ours, *(p for found in probes.values() for p in found)])
        self._remember()

    def _targets(self, cluster: ClusterName) -> list[Node]:
        names = self._mesh.nodes.names(cluster)
        if cluster == self._mesh.own:
            names = [name for name in names if name != self._me]
        found = (self._mesh.nodes.get(cluster, n) for n in rotate(names, self._turn, self._nodes))
        return [node for node in found if node is not None and node.address(CILIUM_INTERNAL_IP)]

    async def _ask(
        self, echo: Asking, asked: dict[ClusterName, list[Node]]
    ) -> dict[ClusterName, list[Probe]]:
        nodes = [node for found in asked.values() for node in found]
        inner = await echo.ask([a for n in nodes if (a := n.address(CILIUM_INTERNAL_IP))])
        silent = [n for n in nodes if n.address(CILIUM_INTERNAL_IP) not in inner]
        outer = await echo.ask([a for n in silent if (a := n.tunnel_endpoint())])
        probes: dict[ClusterName, list[Probe]] = {name: [] for name in asked}
        for node in nodes:
            latency_s = inner.get(node.address(CILIUM_INTERNAL_IP) or node.addresses[0].ip)
            direct = node.tunnel_endpoint() in outer
            probes[node.cluster].append(Probe(node.name, latency_s is not None, direct))
            self.probes.add(node.cluster, "unanswered" if latency_s is None else "answered")
            if latency_s is not None:
                self.latency.observe(latency_s, node.cluster)
        return probes

    def _obey(self, change: Transition) -> None:
        self._mesh.services.set_share(change.cluster, change.share_pct)
        if change.after is not change.before:
            self.changes.add(change.cluster, change.after.value)
        level = logging.WARNING if change.after is PathState.DOWN else logging.INFO
        log.log(
            level,
            'event=data-path cluster=%s state=%s before=%s share_pct=%d reason="%s"',
            change.cluster,
            change.after,
            change.before,
            change.share_pct,
            self.paths[change.cluster].sentence(),
        )

    def _tell_deafness(self, probes: Sequence[Probe]) -> None:
        deaf = len(probes) > 0 and not any(p.answered or p.direct for p in probes)
        if deaf and not self._deaf:
            log.warning(
                "event=no-answers asked=%d: no node of any cluster answers, so nothing is "
                "concluded about remote clusters: see whether this node has a network",
                len(probes),
            )
        self._deaf = deaf

    def _remember(self) -> None:
        down = sorted(name for name in self.paths if self.paths[name].state in _OUT)
        if down == self._down:
            return
        try:
            write_atomically(self._file, msgspec.json.encode(down))
        except OSError as error:
            log.warning('event=file-failed path=%s error="%s"', self._file, error)
        else:
            self._down = down

    def shape(self, cluster: ClusterName) -> dict[str, Any]:
        """For the API."""
        path = self.paths[cluster]
        return {
            "state": path.state.value,
            "share-percent": path.share_pct,
            "nodes-asked": len(path.last),
            "nodes-answered": sum(p.answered for p in path.last),
            "status": path.sentence(),
        }


def _read(path: Path) -> list[ClusterName]:
    try:
        return [ClusterName(n) for n in msgspec.json.decode(path.read_bytes(), type=list[str])]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        log.warning('event=file-ignored path=%s error="%s"', path, error)
        return []
