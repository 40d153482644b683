"""WireGuard devices in namespaces of a measurement, the kernel's or userspace."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bench import topology
from datapath import namespaces
from encryption import wireguard_keys as keys
from encryption.choose import open_device
from encryption.device import MARK, OVERHEAD_BYTES
from encryption.peers import PublicKey
from encryption.wireguard import Device
from encryption.wireguard_userspace import UserspaceDevice

T = TypeVar("T")

# A process sees this directory as /run: wireguard-go's sockets are named by device alone.
_OWN_RUN = 'mount --make-rprivate /; mount --bind "$0/run" /run; exec "$@"'


@contextmanager
def keeper(space: str) -> Iterator[Path]:
    """A keeper of userspace devices in a namespace, and the directory where it lives."""
    with _directory() as directory:
        wanted = str(directory / "wanted")
        command = (sys.executable, "-m", "encryption.keeper", "--wanted", wanted)
        with _running(space, directory, *command):
            yield directory


@contextmanager
def bare(space: str, name: str, port: int) -> Iterator[tuple[Device, PublicKey]]:
    """``wireguard-go`` with a device as it opens it by itself, and with a key."""
    with _directory() as directory, _running(space, directory, "wireguard-go", "-f", name):
        device = UserspaceDevice(name, directory, directory / "run" / "wireguard")
        yield device, in_space(space, lambda: _set_up(device, port))


def _set_up(device: Device, port: int) -> PublicKey:
    device.ensure(1500 - OVERHEAD_BYTES)
    key = keys.generate()
    device.configure(key, port, MARK)
    return key.public()


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ist-bench-") as name:
        directory = Path(name)
        (directory / "run").mkdir()
        yield directory


@contextmanager
def _running(space: str, directory: Path, *command: str) -> Iterator[None]:
    words = topology.inside(space, "unshare", "-m", "sh", "-c", _OWN_RUN, str(directory), *command)
    environment = os.environ | {"LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def in_space(space: str, work: Callable[[], T]) -> T:
    """Call in a network namespace."""
    return namespaces.run_inside(f"/run/netns/{space}", work)


def opened(space: str, name: str, directory: Path, port: int) -> tuple[Device, PublicKey]:
    """A device with a key, kernel or userspace."""

    def work() -> tuple[Device, PublicKey]:
        sockets = directory / "run" / "wireguard"
        device, _ = open_device(name, 1500 - OVERHEAD_BYTES, directory / "wanted", sockets)
        return device, _set_up(device, port)

    return in_space(space, work)
