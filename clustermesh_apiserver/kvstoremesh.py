"""``kvstoremesh``: copies of remote clusters in our own store, and the pages. Adapter; no rules."""

import asyncio
import json
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certs.presented import presented
from clustermesh_apiserver import copy_metrics, health
from clustermesh_apiserver.requests import Requests
from kvstore import etcd
from kvstore.config import load_store_config
from kvstore.config_directory import ConfigDirectory
from kvstore.reflection import COMPARE_S, GRACE_S, Reflection
from kvstore.reflections import Reflections
from kvstore.shape import connection
from kvstore.staleness import KEEP
from model.cluster import ClusterName
from wire.etcd import keys

log = logging.getLogger("kvstoremesh")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``kvstoremesh`` is told."""

    cluster_name: ClusterName
    etcd_config: str
    directory: str  # a file per remote cluster
    lease_ttl_s: int
    health_port: int
    api: tuple[str, int]
    metrics: tuple[str, int] | None
    cluster_ready_s: float  # a remote that does not even connect in this time is not waited for
    global_ready_s: float  # ready after this time, whatever is missing
    drain: bool  # take the copy of a removed cluster away
    cache_ttl_s: float = KEEP  # backends of a cluster that is away so long go out of its copy
    compare_s: float = COMPARE_S


class Pages:
    """What the pages say."""

    def __init__(self, settings: Settings, reflections: Reflections) -> None:
        self._settings = settings
        self._reflections = reflections
        self.requests = Requests()
        self._started = time.monotonic()
        self._ready = False
        self.bootstrap_s = 0.0  # from start to ready

    def readyz(self) -> tuple[int, str]:
        """200 once every remote is copied that can be: only then may agents be sent here."""
        if not self._ready and self._complete():
            self._ready = True
            self.bootstrap_s = time.monotonic() - self._started
            log.info("event=ready seconds=%.3f", self.bootstrap_s)
        return (200, "Ready\n") if self._ready else (500, "NotReady\n")

    def _complete(self) -> bool:
        passed = time.monotonic() - self._started
        if passed > self._settings.global_ready_s:
            return True
        late = passed > self._settings.cluster_ready_s
        return self._reflections.configured.is_set() and all(
            r.source.status.ready or (late and not r.source.status.connected)
            for r in self._reflections.all.values()
        )

    def healthz(self) -> tuple[int, str]:
        """Always 200, with what is wrong: a restart would mend none of it."""
        lines = list(self._reflections.problems)
        for name, reflection in self._reflections.all.items():
            if not reflection.source.status.ready:
                lines.append(f"cluster {name}: {reflection.source.status.message}")
        return 200, "".join(f"{line}\n" for line in lines) or "ok\n"

    def clusters(self) -> tuple[int, str]:
        """A ``RemoteCluster`` for each, as the agents' API has it."""
        now, loop_s = datetime.now(UTC), asyncio.get_running_loop().time()
        shown = presented(self._reflections.configs)
        found = []
        for name, reflection in sorted(self._reflections.all.items()):
            shape = remote_cluster(name, reflection, now)
            shape |= connection(reflection.source.status, loop_s)
            if name in shown:
                shape["certificate"] = shown[name].shape()
            found.append(shape)
        return 200, json.dumps(found)

    def metrics(self) -> tuple[int, str]:
        """Names are those of Cluster Mesh where it has one, our own below them."""
        here = {
            "source_cluster": str(self._settings.cluster_name),
            "source_node_name": os.environ.get("K8S_NODE_NAME") or os.uname().nodename,
        }
        ahead_s = time.time() - asyncio.get_running_loop().time()
        return 200, copy_metrics.page(
            here,
            self.bootstrap_s,
            self._reflections.all,
            {n: p.expires for n, p in presented(self._reflections.configs).items()},
            lambda moment_s: moment_s + ahead_s if moment_s else 0.0,
            self.requests,
        )


def remote_cluster(name: str, reflection: Reflection, now: datetime) -> dict[str, Any]:
    """One remote cluster and the age of its copy."""
    status, copy = reflection.source.status, reflection.copy_status
    config = status.config
    shape: dict[str, Any] = {
        "name": name,
        "connected": status.connected,
        "ready": status.ready,
        "status": f"etcd: 1/1 connected, endpoint: {status.endpoint}, ID: {status.etcd_id:x}"
        if status.connected and status.ready
        else status.message,
        "num-nodes": status.counts.get(keys.NODES, 0),
        "num-endpoints": status.counts.get(keys.IP, 0),
        "num-identities": status.counts.get(keys.IDENTITIES, 0),
        "num-shared-services": status.counts.get(keys.SERVICES, 0),
        "num-service-exports": status.counts.get(keys.SERVICE_EXPORTS, 0),
        "num-failures": status.failures,
        "synced": {
            "nodes": keys.NODES in status.synced,
            "endpoints": keys.IP in status.synced,
            "identities": keys.IDENTITIES in status.synced,
            "services": keys.SERVICES in status.synced,
        },
        "config": {
            "required": True,
            "retrieved": config is not None and status.connected,
            "cluster-id": config.id if config else 0,
            "kvstoremesh": bool(config and config.capabilities.cached),
            "sync-canaries": bool(config and config.capabilities.synced_canaries),
        },
    }
    if copy.heard:
        shape["last-heard"] = copy.heard
        shape["age-seconds"] = max(
            0, round((now - datetime.fromisoformat(copy.heard)).total_seconds())
        )
    return shape


async def run(settings: Settings) -> None:
    """Until cancelled. Raises ``ValueError`` for settings that cannot be right."""
    load_store_config(Path(settings.etcd_config))

    async def local() -> etcd.EtcdStore:
        # Read anew each time: a rotated certificate needs no restart.
        return await etcd.connect(load_store_config(Path(settings.etcd_config)))

    reflections = Reflections(
        ConfigDirectory(Path(settings.directory), settings.cluster_name),
        local,
        settings.lease_ttl_s,
        GRACE_S if settings.drain else None,
        settings.cache_ttl_s,
        settings.compare_s,
    )
    pages = Pages(settings, reflections)
    log.info("event=start cluster=%s directory=%s", settings.cluster_name, settings.directory)
    runners = [
        await health.serve(
            "",
            settings.health_port,
            {"/readyz": pages.readyz, "/healthz": pages.healthz},
            pages.requests,
        )
    ]
    try:
        clusters = {"/v1/cluster": pages.clusters}
        runners.append(await health.serve(*settings.api, clusters, pages.requests))
        if settings.metrics is not None:
            found = {"/metrics": pages.metrics}
            runners.append(await health.serve(*settings.metrics, found, pages.requests))
        await reflections.run()
    finally:
        for runner in runners:
            await runner.cleanup()
