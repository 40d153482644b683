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
from pathlib import Path

log = logging.getLogger("etcdinit")

STOP_S = 10


class EtcdInitError(OSError):
    """The store could not be prepared."""


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
        async with asyncio.TaskGroup() as tasks:
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
