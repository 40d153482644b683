"""WireGuard devices in namespaces of a measurement, the kernel's or userspace."""

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

T = TypeVar("T")

# The keeper and wireguard-go see this directory as /run: sockets are named by device alone.
_KEEPER = 'mount --make-rprivate /; mount --bind "$1/run" /run; exec "$2" -m encryption.keeper'


@contextmanager
def keeper(space: str) -> Iterator[Path]:
    """A keeper of userspace devices in a namespace, and the directory where it lives."""
    with tempfile.TemporaryDirectory(prefix="ist-bench-") as name:
        directory = Path(name)
        (directory / "run").mkdir()
        script = f'{_KEEPER} --wanted "$1/wanted"'
        words = ("unshare", "-m", "sh", "-c", script, "sh", name, sys.executable)
        process = subprocess.Popen(topology.inside(space, *words), stdout=subprocess.DEVNULL)
        try:
            yield directory
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
        key = keys.generate()
        device.configure(key, port, MARK)
        return device, key.public()

    return in_space(space, work)
