"""The kubelet's process: ``python -m kind.kubelet NODE_DIRECTORY``. Composition only."""

import asyncio
import contextlib
import json
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kind.kubelet import node, server
from kind.kubelet.api import Api
from kind.kubelet.config import Config
from kind.kubelet.link import Link
from kind.kubelet.manager import Manager, ObjectCache
from kind.kubelet.sandbox import Network
from kind.kubelet.tools import Tools
from reconcile.tasks import TaskGroup

# Calls to the runtime and CNI plugins block a thread each for some milliseconds.
THREADS = 32


def load_config(directory: Path) -> Config:
    """Read what the lab wrote for the node."""
    raw: dict[str, Any] = json.loads((directory / "kubelet.json").read_text())
    for name in ("directory", "ca_file", "serving_cert", "serving_key", "client_ca"):
        raw[name] = Path(raw[name])
    return Config(**raw)


async def run(config: Config) -> None:
    """Build everything and run until cancelled."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    main_task = asyncio.current_task()
    assert main_task is not None
    loop.add_signal_handler(signal.SIGTERM, main_task.cancel)
    runtime = Link(str(config.directory))
    cache = ObjectCache()
    async with Api(config.api_url, config.ca_file, config.token) as api:
        tools = Tools(config, api, runtime, Network(config, runtime.client), cache.sources)
        manager = Manager(tools, runtime, cache)
        await manager.load()
        async with server.serving(config, manager, runtime), TaskGroup() as tasks:
            await node.register(config, api)
            tasks.create_task(node.keep_status(config, api))
            tasks.create_task(_containers(runtime, manager))
            tasks.create_task(manager.housekeeping())
            for kind, plural in (("configmap", "configmaps"), ("secret", "secrets")):
                cache.kind(kind)
                tasks.create_task(_objects(api, manager, kind, plural))
            for event in list(cache.synced.values()):
                await event.wait()  # a missing ConfigMap must not be a matter of order
            query = f"fieldSelector=spec.nodeName%3D{config.node}"
            async for change in api.follow("/api/v1/pods", query):
                manager.pod_changed(tasks, change.kind, change.object)


async def _objects(api: Api, manager: Manager, kind: str, plural: str) -> None:
    async for change in api.follow(f"/api/v1/{plural}"):
        manager.object_changed(kind, change.kind, change.object)


async def _containers(runtime: Link, manager: Manager) -> None:
    async for name in runtime.watch():
        await manager.containers_changed(name)


def main() -> None:
    """Start with the node's directory as the only argument."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    # At the end the containers stay: the next kubelet adopts them.
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(run(load_config(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
