"""``etcdinit``: an empty etcd with the users and roles of a mesh member. Adapter.

The data is disposable: the directory is emptied, a throw-away etcd is started on a loopback port
that nobody else knows, users and roles are made, authentication is switched on, and etcd is
stopped. The etcd that serves other clusters is started on the same directory afterwards.
"""

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kvstore import etcd
from kvstore.advisories import weaknesses
from kvstore.bootstrap import bootstrap
from kvstore.config import StoreConfig
from model.cluster import ClusterName
from reconcile.tasks import TaskGroup

log = logging.getLogger("etcdinit")

STOP_S = 10


class EtcdInitError(OSError):
    """The store could not be prepared."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``etcdinit`` is told."""

    data_dir: str
    token: str  # keeps members of different stores apart
    member: str  # etcd's own name
    binary: str
    cluster_name: ClusterName
    timeout_s: float


def empty_directory(path: str) -> None:
    """Remove what is inside; the directory itself is a mount and stays."""
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    directory.chmod(0o700)  # etcd insists


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def throwaway_etcd(binary: str, data_dir: str, name: str, token: str) -> AsyncIterator[str]:
    """A plain etcd on loopback; its client URL. Ended cleanly, so that all is on disk."""
    client, peer = f"http://127.0.0.1:{_free_port()}", f"http://127.0.0.1:{_free_port()}"
    process = await asyncio.create_subprocess_exec(
        binary,
        f"--data-dir={data_dir}",
        f"--name={name}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={name}={peer}",
        f"--initial-cluster-token={token}",
        "--initial-cluster-state=new",
        "--logger=zap",
        "--log-level=warn",
    )
    try:
        async with TaskGroup() as tasks:
            watcher = tasks.create_task(_ended_early(process))
            yield client
            watcher.cancel()
    finally:
        await _stop(process)


async def _ended_early(process: asyncio.subprocess.Process) -> None:
    code = await process.wait()
    raise EtcdInitError(f"etcd ended with code {code} before it was set up: see its log above")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await process.wait()
            return
    process.kill()
    await process.wait()


async def run(settings: Settings) -> None:
    """Empty the directory, prepare the store in it. Raises ``EtcdInitError``."""
    binary = shutil.which(settings.binary)
    if binary is None:
        raise EtcdInitError(
            f"etcd-binary: there is no program {settings.binary}: install etcd-server"
        )
    try:
        async with asyncio.timeout(settings.timeout_s):
            await asyncio.to_thread(empty_directory, settings.data_dir)
            async with throwaway_etcd(
                binary, settings.data_dir, settings.member, settings.token
            ) as url:
                store = await etcd.connect(StoreConfig((url,)))
                try:
                    for weakness in weaknesses((await store.status()).version):
                        log.info("event=weak-store why=%s", weakness.value)
                    await bootstrap(store, settings.cluster_name)
                finally:
                    await store.close()
    except TimeoutError as error:
        raise EtcdInitError(
            f"the store was not prepared within {settings.timeout_s:g} s: see etcd's log above"
        ) from error
    log.info("event=prepared directory=%s cluster=%s", settings.data_dir, settings.cluster_name)
