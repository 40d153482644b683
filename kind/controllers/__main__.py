"""``python -m kind.controllers``: all controllers and the scheduler in one process. Adapter."""

import argparse
import asyncio
import base64
import logging
import signal
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

import kube.config
from kind.apiserver.objects import Obj, dicts, dig
from kind.controllers.daemonsets import DaemonSetController
from kind.controllers.deployments import DeploymentController
from kind.controllers.garbage import GarbageCollector
from kind.controllers.hub import Hub, table_name
from kind.controllers.jobs import JobController
from kind.controllers.namespaces import AccountController, NamespaceController
from kind.controllers.nodes import PrefixController
from kind.controllers.queue import Controller, Runner
from kind.controllers.replicasets import ReplicaSetController
from kind.controllers.scheduler import Scheduler
from kind.controllers.services import ServiceController
from kind.controllers.statefulsets import StatefulSetController
from kube.port import Resource
from reconcile.tasks import TaskGroup

log = logging.getLogger("kind.controllers")
WHOLE = frozenset(
    {
        "pods",
        "nodes",
        "namespaces",
        "services",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "deployments.apps",
        "replicasets.apps",
        "daemonsets.apps",
        "statefulsets.apps",
        "jobs.batch",
    }
)
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_SKIPPED = frozenset({"events", "events.events.k8s.io"})
_RETRY_S = 0.2


def ca_of(kubeconfig: str) -> str:
    """The PEM of the CA of the current context's cluster; empty when there is none."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    context: Obj = next(
        (
            c["context"]
            for c in dicts(config.get("contexts"))
            if c.get("name") == config.get("current-context")
        ),
        {},
    )
    cluster: Obj = next(
        (
            c["cluster"]
            for c in dicts(config.get("clusters"))
            if c.get("name") == context.get("cluster")
        ),
        {},
    )
    if data := cluster.get("certificate-authority-data"):
        return base64.b64decode(data).decode()
    path = cluster.get("certificate-authority")
    return Path(kubeconfig).parent.joinpath(path).read_text() if path else ""


async def discover(hub: Hub) -> dict[str, Resource[Any]]:
    """Every resource that can be listed, watched and deleted, in its preferred version."""
    places = [("", "v1", "/api/v1")]
    for group in dicts((await hub.read("/apis")).get("groups")):
        version = str(dig(group, "preferredVersion", "version"))
        places.append((group["name"], version, f"/apis/{group['name']}/{version}"))
    out = {}
    for group_name, version, path in places:
        for r in dicts((await hub.read(path)).get("resources")):
            if "/" in r["name"] or not {"list", "watch", "delete"} <= set(r["verbs"]):
                continue
            name = table_name(group_name, r["name"])
            if name not in _SKIPPED:
                out[name] = Resource(
                    group_name, version, r["name"], r["kind"], r["namespaced"], dict
                )
    return out


class Tables:
    """Follows every resource the server has, also those of CRDs that come later."""

    def __init__(self, hub: Hub, group: TaskGroup) -> None:
        self._hub, self._group = hub, group
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        hub.listen(self._on_change)

    def _on_change(self, table: str, old: Obj | None, new: Obj | None) -> None:
        if table == CRDS:
            self._changed.set()

    async def refresh(self) -> None:
        """Follow what is new, forget what is gone. Raises ``OSError``."""
        found = await discover(self._hub)
        for name, resource in found.items():
            if name not in self._tasks:
                table = self._hub.add(resource, whole=name in WHOLE)
                self._tasks[name] = self._group.create_task(self._hub.follow(table))
        for name in self._tasks.keys() - found.keys():
            self._tasks.pop(name).cancel()
            self._hub.remove(name)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except OSError as error:
                log.warning("event=discovery_failed error=%s", error)
                await asyncio.sleep(_RETRY_S)
                self._changed.set()


async def run(kubeconfig: str, cluster_cidr: str) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ca_pem = ca_of(kubeconfig)
    async with await kube.config.connect(kubeconfig) as client:
        hub = Hub(client)
        controllers: list[Controller] = [
            ServiceController(hub),
            Scheduler(hub),
            ReplicaSetController(hub),
            DeploymentController(hub),
            DaemonSetController(hub),
            StatefulSetController(hub),
            JobController(hub),
            NamespaceController(hub),
            AccountController(hub, ca_pem),
            GarbageCollector(hub),
        ]
        if cluster_cidr:
            prefixes = [ip_network(text) for text in cluster_cidr.split(",")]
            controllers.append(PrefixController(hub, prefixes))
        runners = [Runner(hub, c) for c in controllers]
        async with TaskGroup() as group:
            main_task = group.create_task(_work(hub, runners))
            await stop.wait()
            main_task.cancel()


async def _work(hub: Hub, runners: list[Runner]) -> None:
    async with TaskGroup() as group:
        tables = Tables(hub, group)
        while True:
            try:
                await tables.refresh()
                break
            except OSError as error:
                log.info("event=waiting_for_api error=%s", error)
                await asyncio.sleep(_RETRY_S)
        for table in list(hub.tables.values()):
            await table.synced.wait()
        log.info("event=ready tables=%d", len(hub.tables))
        group.create_task(tables.run())
        for runner in runners:
            group.create_task(runner.run())


def main() -> None:
    """The process."""
    p = argparse.ArgumentParser(prog="python -m kind.controllers", description=__doc__)
    p.add_argument("--kubeconfig", required=True)
    p.add_argument(
        "--cluster-cidr", default="", help="give nodes without a podCIDR a part of it, or of each"
    )
    a = p.parse_args(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(run(a.kubeconfig, a.cluster_cidr))
    except (OSError, ValueError) as e:
        raise SystemExit(f"kind.controllers: {e}") from None


if __name__ == "__main__":
    main()
