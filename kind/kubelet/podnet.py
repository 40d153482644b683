"""The network namespace of one pod: made, found again, undone. Adapter."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from kind.kubelet import launch as launching
from kind.kubelet import sandbox as sandboxes
from kind.kubelet.sandbox import Sandbox
from kind.kubelet.tools import Tools

log = logging.getLogger(__name__)

Json = dict[str, Any]

DEL_ATTEMPTS = 20  # with the pause below some seconds: the plugin queues what it cannot do at once
DEL_RETRY_S = 0.25


def _path(tools: Tools, pod: Json) -> Path:
    return launching.pod_directory(tools.config, pod["metadata"]["uid"]) / "sandbox.json"


def find(tools: Tools, pod: Json) -> Sandbox | None:
    """What an earlier kubelet made, if it is whole."""
    known = sandboxes.load(_path(tools, pod))
    if known is not None and known.pod_ip and sandboxes.exists(known):
        return known
    return None


async def make(tools: Tools, pod: Json) -> Sandbox:
    """As the pod asks for; what is there already is returned. Raises ``OSError``."""
    path = _path(tools, pod)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (whole := find(tools, pod)) is not None:
        return whole
    if (known := sandboxes.load(path)) is not None:
        # A half-made network is undone first, as the CNI specification asks.
        await tools.network.delete(pod, known)
        path.unlink()
    identifier = pod["metadata"]["uid"].replace("-", "")
    if pod["spec"].get("hostNetwork"):
        ips = tools.config.node_ips
        made = Sandbox(tools.config.netns, ips[0], True, identifier, [], ips)
    else:
        planned = tools.network.plan(pod, identifier)
        sandboxes.save(path, planned)
        made = await tools.network.add(pod, planned)
    sandboxes.save(path, made)
    return made


async def remove(tools: Tools, pod: Json, made: Sandbox | None) -> None:
    """Undo it; when the plugin cannot, the namespace is removed without it."""
    sandbox = made or sandboxes.load(_path(tools, pod))
    if sandbox is None:
        return
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for attempt in range(DEL_ATTEMPTS):
        try:
            await tools.network.delete(pod, sandbox)
        except OSError as error:
            log.warning("CNI DEL failed pod=%s attempt=%d error=%s", name, attempt, error)
            await asyncio.sleep(DEL_RETRY_S)
        else:
            return
    log.error("network namespace removed without CNI DEL pod=%s", name)
    await asyncio.to_thread(sandboxes.remove_netns, sandbox.netns)
