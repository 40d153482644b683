"""All copies of remote clusters: they come and go with the configuration directory. Adapter."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from kvstore import etcd
from kvstore.bulk import BulkStore
from kvstore.config import StoreConfig
from kvstore.config_directory import ConfigDirectory, Directory, RemoteConfig
from kvstore.mirrored import LEASE_TTL_S
from kvstore.reflection import COMPARE_S, GRACE_S, Reflection
from kvstore.staleness import KEEP
from model.cluster import ClusterName
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    config: RemoteConfig
    reflection: Reflection
    task: asyncio.Task[None]


class Reflections:
    """Owns the copies."""

    def __init__(
        self,
        directory: ConfigDirectory,
        local: Callable[[], Awaitable[BulkStore]],
        lease_ttl_s: int = LEASE_TTL_S,
        grace_s: float | None = GRACE_S,
        cache_ttl_s: float = KEEP,
        compare_s: float = COMPARE_S,
    ) -> None:
        """``grace_s`` is how long a removed cluster's rows stay; ``None``: they are left alone.

        ``cache_ttl_s``: how old a copy may become unless the cluster's file says otherwise.
        """
        self._cache_ttl_s = cache_ttl_s
        self._compare_s = compare_s
        self._directory = directory
        self._local = local
        self._lease_ttl_s = lease_ttl_s
        self._grace_s = grace_s
        self._running: dict[ClusterName, _Running] = {}
        self._leaving: dict[ClusterName, asyncio.Task[None]] = {}
        self.problems: tuple[str, ...] = ()
        self.configured = asyncio.Event()  # the directory has been read once

    @property
    def all(self) -> Mapping[ClusterName, Reflection]:
        """Every configured remote cluster."""
        return {name: running.reflection for name, running in self._running.items()}

    @property
    def configs(self) -> Mapping[ClusterName, StoreConfig]:
        """How each remote cluster is reached."""
        return {name: running.config.config for name, running in self._running.items()}

    async def run(self) -> None:
        """Until cancelled. The copies stay when we stop: only removal takes them away."""
        async with TaskGroup() as tasks:
            async for now in self._directory.changes():
                await self._apply(now, tasks)
                self.configured.set()

    async def _apply(self, now: Directory, tasks: TaskGroup) -> None:
        self.problems = now.problems
        for problem in now.problems:
            log.warning('event=bad_remote_config problem="%s"', problem)
        for name in [n for n in self._running if n not in now.clusters]:
            gone = self._running.pop(name)
            await _end(gone.task)
            if self._grace_s is not None:
                self._leaving[name] = tasks.create_task(gone.reflection.remove(self._grace_s))
            log.info("event=remote_removed cluster=%s", name)
        for name, config in now.clusters.items():
            known = self._running.get(name)
            if known is not None and known.config.digest == config.digest:
                if known.config.files != config.files:
                    known.config = config
                    known.reflection.source.try_now()  # a copy that is kept goes on as it is
                continue
            if known is not None:
                await _end(known.task)
            elif name in self._leaving:
                await _end(self._leaving.pop(name))
            log.info("event=%s cluster=%s", "remote_changed" if known else "remote_added", name)
            reflection = Reflection(
                name, _connect(config), self._local, self._lease_ttl_s, self._compare_s
            )
            own_s = config.config.cache_ttl_s
            reflection.source.set_policy(self._cache_ttl_s if own_s is None else own_s)
            self._running[name] = _Running(config, reflection, tasks.create_task(reflection.run()))


def _connect(config: RemoteConfig) -> Callable[[], Awaitable[BulkStore]]:
    async def connect() -> BulkStore:
        return await etcd.connect(config.config)

    return connect


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
