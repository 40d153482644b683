"""Userspace WireGuard for tests: a keeper in a namespace, with sockets of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datapath.kernel_thread import KernelThread
from encryption import wireguard_keys as keys
from encryption.choose import open_device
from encryption.device import MARK, OVERHEAD_BYTES
from encryption.wireguard import Device
from encryption.wireguard_keys import PrivateKey

ROOT = Path(__file__).parents[2]
# The keeper and wireguard-go see this directory as /run: sockets are named by device alone.
_SCRIPT = 'mount --make-rprivate /; mount --bind "$1/run" /run; exec "$2" -m encryption.keeper'


@contextmanager
def keeper(namespace: str, directory: Path) -> Iterator[Path]:
    """A keeper in a network namespace; gives the directory where devices are asked for."""
    wanted = directory / "wanted"
    (directory / "run").mkdir(parents=True)
    command = ["ip", "netns", "exec", namespace, "unshare", "-m", "sh", "-c"]
    arguments = [f'{_SCRIPT} --wanted "$3"', "sh", directory, sys.executable, wanted]
    process = subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, env=dict(os.environ))
    try:
        yield wanted
    finally:
        process.terminate()
        process.wait(timeout=30)


def opened(name: str, mtu: int, directory: Path) -> tuple[Device, int]:
    """As the agent opens it, in the calling thread's namespace: the kernel's where there is one."""
    return open_device(name, mtu, directory / "wanted", directory / "run" / "wireguard")


@dataclass
class Encrypted:
    """A device that is ready, with its key."""

    device: Device
    key: PrivateKey
    ifindex: int
    thread: KernelThread


async def start(
    thread: KernelThread,
    directory: Path,
    name: str = "ist_wg0",
    port: int = 51871,
    mtu: int = 1500,
) -> Encrypted:
    """Make a device in a thread's namespace and give it a key."""
    made, ifindex = await thread.call(opened, name, mtu - OVERHEAD_BYTES, directory)
    key = keys.generate()
    await thread.call(made.configure, key, port, MARK)
    return Encrypted(made, key, ifindex, thread)
