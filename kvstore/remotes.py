"""All remote clusters: sessions come and go with the configuration directory. Adapter.

A cluster ID is reserved by the cluster that announced it first; a second one is told so and kept
out. Changed configuration connects again; removed configuration drains what was learnt.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from kvstore import etcd
from kvstore.allowance import Limits
from kvstore.config import StoreConfig
from kvstore.config_directory import ConfigDirectory, Directory, RemoteConfig
from kvstore.connection import Happening
from kvstore.remote import Remote, Sink
from kvstore.session import RemoteStore
from kvstore.staleness import KEEP
from kvstore.status import RemoteStatus
from kvstore.turns import Turns
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName, parse_cluster_id
from reconcile.tasks import TaskGroup
from wire.etcd import keys

log = logging.getLogger(__name__)


class Remotes:
    """Owns the sessions."""

    def __init__(
        self,
        directory: ConfigDirectory,
        sink: Sink,
        own_name: ClusterName,
        own_id: ClusterId,
        max_connected: int = 255,
        limits: Limits | None = None,
        wanted: Callable[[Capabilities], tuple[str, ...]] = lambda _: keys.REQUIRED,
        connect: Callable[[StoreConfig], Awaitable[RemoteStore]] = etcd.connect,
        randomness: random.Random | None = None,
        cache_ttl_s: float = KEEP,
        node_labels: bool = True,
    ) -> None:
        """``wanted``: which types are read of a cluster that can do such things; ``cache_ttl_s``:
        how old a cluster's data may become unless its file says otherwise."""
        self._limits, self._wanted, self._cache_ttl_s = limits, wanted, cache_ttl_s
        self._connect = connect
        self._randomness = randomness or random.Random()  # jitter only; one has 2.5 KB
        self._directory = directory
        self._turns = Turns()
        self._node_labels = node_labels
        self._sink = sink
        self._own_name = own_name
        self._own_id = own_id
        self._max_connected = max_connected
        self._sessions: dict[ClusterName, tuple[RemoteConfig, Remote, asyncio.Task[None]]] = {}
        self._reserved: dict[ClusterId, ClusterName] = {}
        self.problems: tuple[str, ...] = ()
        self.configured = asyncio.Event()  # the directory has been read once

    @property
    def statuses(self) -> Mapping[ClusterName, RemoteStatus]:
        """Every configured remote cluster."""
        return {name: remote.status for name, (_, remote, _) in self._sessions.items()}

    def status(self, name: ClusterName) -> RemoteStatus | None:
        """One of them."""
        found = self._sessions.get(name)
        return found[1].status if found else None

    @property
    def configs(self) -> Mapping[ClusterName, StoreConfig]:
        """How each of them is reached."""
        return {name: config.config for name, (config, _, _) in self._sessions.items()}

    async def run(self) -> None:
        """Until cancelled. What was learnt stays when we stop: only removal drains."""
        async with TaskGroup() as tasks:
            async for now in self._directory.changes():
                await self._apply(now, tasks)
                self.configured.set()

    async def _apply(self, now: Directory, tasks: TaskGroup) -> None:
        self.problems = now.problems
        for problem in now.problems:
            log.warning('event=bad_remote_config problem="%s"', problem)
        for name in [n for n in self._sessions if n not in now.clusters]:
            _, remote, task = self._sessions.pop(name)
            await _end(task)
            self._release(name)
            remote.disconnected(Happening.REMOVED)
            remote.drain()
            log.info("event=remote_removed cluster=%s", name)
        for name, config in now.clusters.items():
            known = self._sessions.get(name)
            if known is not None and known[0].digest == config.digest:
                if known[0].files != config.files:
                    self._sessions[name] = (config, *known[1:])
                    known[1].try_now()  # a session that stands goes on as it is
                    log.info("event=certificates_changed cluster=%s", name)
                continue
            if known is None:
                remote = self._remote(name)
                log.info("event=remote_added cluster=%s", name)
            elif replace(known[0].config, cache_ttl_s=config.config.cache_ttl_s) == config.config:
                self._sessions[name] = (config, *known[1:])
                self._set_policy(name)  # no reason to connect again
                continue
            else:
                await _end(known[2])
                remote = known[1]
                remote.disconnected(Happening.EDITED)
                log.info("event=remote_changed cluster=%s", name)
            self._sessions[name] = (config, remote, tasks.create_task(remote.run()))
            self._set_policy(name)

    def _set_policy(self, name: ClusterName) -> None:
        config, remote, _ = self._sessions[name]
        own_s = config.config.cache_ttl_s
        remote.set_policy(self._cache_ttl_s if own_s is None else own_s)

    def _remote(self, name: ClusterName) -> Remote:
        async def connect() -> RemoteStore:
            return await self._connect(self._sessions[name][0].config)

        sink, accept = self._sink, self._accept
        return Remote(
            name,
            connect,
            sink,
            accept,
            self._randomness,
            self._limits,
            self._wanted,
            self._turns,
            self._node_labels,
        )

    def _accept(self, name: ClusterName, config: ClusterConfig) -> None:
        if not self._own_id:
            raise ValueError(
                f"remote cluster {name}: this cluster has ID 0 and is in no mesh: "
                "set cluster-id and cluster-name"
            )
        theirs = config.capabilities.max_connected_clusters
        if theirs != self._max_connected:
            raise ValueError(
                f"remote cluster {name}: mismatched MaxConnectedClusters; "
                f"local={self._max_connected}, remote={theirs}: set both to the same"
            )
        try:
            parse_cluster_id(config.id, self._max_connected)
        except ValueError as error:
            raise ValueError(f"remote cluster {name}: {error}") from error
        if config.id == self._own_id:
            raise ValueError(
                f"remote cluster {name}: clusterID {config.id} is assigned to the local cluster: "
                "give one of the two another ID"
            )
        holder = self._reserved.get(config.id, name)
        if holder != name:
            raise ValueError(
                f"remote cluster {name}: clusterID {config.id} is already used by {holder}: "
                "give one of the two another ID"
            )
        self._release(name)
        self._reserved[config.id] = name

    def _release(self, name: ClusterName) -> None:
        for number in [i for i, n in self._reserved.items() if n == name]:
            del self._reserved[number]


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
