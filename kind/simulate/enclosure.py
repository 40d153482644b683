"""A place that vanishes with its processes. Adapter.

A rehearsal runs in network, mount and process namespaces of its own that have no name: its etcds,
its agent, pinned maps and files are in them. When the command ends, also by ``kill -9``, the kernel
ends every process in there, and with the last one everything else is gone.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from kind.runtime import namespaces

ROOT = Path("/run/isthmus/simulate")  # an empty directory outside, a memory file system inside
CHECKOUT = Path(__file__).resolve().parents[2]
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def enclosed(module: str, arguments: Sequence[str], stdout: int | None = None) -> "Enclosed":
    """Start ``python -m module`` in a new enclosure. Raises ``PermissionError`` without root."""
    if os.geteuid():
        raise PermissionError("a rehearsal needs root: run it with sudo")
    ROOT.mkdir(parents=True, exist_ok=True)
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--fork"]
    command += ["--kill-child=KILL", "--mount-proc", sys.executable, "-m", module, *arguments]
    try:
        return Enclosed(subprocess.Popen(command, cwd=CHECKOUT, stdout=stdout))
    except FileNotFoundError as error:
        raise OSError(f"{error.filename} is missing: install util-linux") from error


class Enclosed:
    """A running enclosure, from outside."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def wait(self) -> int:
        """Its exit code; 128 + the signal when we are told to end, and then nothing is left."""
        with _told() as told:
            while True:
                try:
                    code = self._process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    if not told:
                        continue
                    self.end()
                    return 128 + told[0]
                return code if code >= 0 else 128 - code

    def output(self) -> bytes:
        """Everything it prints, until it ends."""
        return self._process.communicate()[0]

    def end(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _told() -> Iterator[list[int]]:
    """Signals that came meanwhile."""
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, note) for number in _ENDS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def furnish(own_run: bool = False) -> None:
    """Inside: loopback, a memory file system, a bpffs; with ``own_run`` a /run of its own.

    Raises ``OSError``.
    """
    if own_run:
        namespaces.mount("isthmus-simulate", "/run", "tmpfs", data="mode=755")
        ROOT.mkdir(parents=True)
    namespaces.mount("isthmus-simulate", str(ROOT), "tmpfs", data="mode=700")
    (ROOT / "bpf").mkdir()
    namespaces.mount("bpf", str(ROOT / "bpf"), "bpf")
    _ip("link set lo up")
    _ip("link add under0 type veth peer name wire0")
    for device in ("under0", "wire0"):
        _ip(f"link set {device} up")


def add_address(address: str) -> None:
    """Give the underlay's device an address."""
    _ip(f"addr add {address} dev under0")


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {words}: {done.stderr.strip()}")
