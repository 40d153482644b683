"""What an agent that is ready does from time to time. Wiring only."""

import asyncio
import logging
import time

from agent import cni_conf, map_pressure, memory
from agent.echo import Echo
from agent.view import View
from reconcile.tasks import TaskGroup

log = logging.getLogger("isthmus.agent")

CONNTRACK_GC_S = 60.0
CNI_FILE_S = 5.0
DRAIN_CHECK_S = 1.0
MAP_CHECK_S = 30.0


def start(tasks: TaskGroup, view: View) -> None:
    """Until the group ends."""
    for name, work in {
        "cni-file": _keep_cni_file,
        "conntrack": _collect_garbage,
        "late-clusters": _report_late_clusters,
        "memory": _give_back,
        "drains": _end_drains,
        "maps": _watch_maps,
        "probes": _probe,
    }.items():
        tasks.create_task(work(view), name=name)


def write_cni_file(view: View) -> None:
    """The plugin and its configuration; what went wrong is in ``view.progress``."""
    progress = view.progress
    try:
        cni_conf.write(view.config)
    except OSError as error:
        text = f"cannot write the CNI configuration: {error}"
        if text != progress.cni_error:
            log.error('event=cni-file error="%s"', text)
        progress.cni_error = text
    else:
        progress.cni_error = ""
        progress.cni_file = str(view.config.write_cni_conf_when_ready or "")


async def _keep_cni_file(view: View) -> None:
    """Others write to that directory as well."""
    while True:
        await asyncio.sleep(CNI_FILE_S)
        write_cni_file(view)


async def _collect_garbage(view: View) -> None:
    period_s = view.config.conntrack_gc_interval or CONNTRACK_GC_S
    while True:
        await asyncio.sleep(period_s)
        try:
            count = await view.datapath.conntrack.collect_garbage(int(time.monotonic()))
            log.debug("event=conntrack-collected entries=%d", count)
        except OSError as error:
            log.warning('event=conntrack-failed error="%s"', error)


async def _watch_maps(view: View) -> None:
    """Say it when a map is nearly full, and once more when it grows fuller."""
    told: dict[str, int] = {}
    while True:
        for found in map_pressure.pressures(view.tables, view.datapath):
            pct = int(100 * found.share)
            if found.share >= map_pressure.WARN_SHARE and pct > told.get(found.name, 0):
                log.warning("event=map-pressure %s", found.sentence())
            told[found.name] = pct
        await asyncio.sleep(MAP_CHECK_S)


async def _end_drains(view: View) -> None:
    while True:
        await asyncio.sleep(DRAIN_CHECK_S)
        view.mesh.services.expire()


async def _probe(view: View) -> None:
    if view.config.enable_health_checking:
        await view.remotes.configured.wait()
        interval_s = view.config.clustermesh_probe_interval
        await view.prober.run(Echo, lambda: view.remotes.statuses, interval_s)


async def _give_back(view: View) -> None:
    await view.remotes.configured.wait()
    await memory.give_back(lambda: view.remotes.statuses.values())


async def _report_late_clusters(view: View) -> None:
    """Nothing waits for a remote cluster: what it last said is in force until it speaks."""
    await asyncio.sleep(view.config.clustermesh_sync_timeout)
    late = [name for name, status in view.remotes.statuses.items() if not status.ready]
    if late:
        log.warning(
            "event=late-clusters clusters=%s: their last known state stays in force",
            ",".join(sorted(late)),
        )
