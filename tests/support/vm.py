"""A virtual machine whose root is this machine's, read-only, and whose kernel is Debian's.

Needs no hardware help (software emulation, about ten times slower). ``tests/vm/setup.sh`` fetches
the kernel; what the machine writes goes to a directory of ours or is lost with it.
"""

import os
import shlex
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / ".vm/boot"
MEMORY = "3G"
# Ways around flaws of processors, and zeroes where nobody asked for them, cost an emulated one a
# fifth of its time.
# What is translated once serves whoever has the same bytes in the same page at the same address.
KERNEL_OPTIONS = "mitigations=off init_on_alloc=0 randomize_kstack_offset=off audit=0 norandmaps"
# This machine's files once more: what was read stays read. No wide registers to save and restore.
HARDWARE = (
    "-cpu Westmere"
    " -virtfs local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap"
)
READ_ONCE = (
    *(str(ROOT), "/usr/bin", "/usr/sbin", sysconfig.get_path("stdlib")),
    f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
)
# What a booted system would have done, and nobody does here.
PREPARE = "\n".join(
    [
        "set -e",
        "mount -t bpf bpf /sys/fs/bpf",
        "ip link set lo up",
        "mkdir /run/files",
        "mount -t 9p -o ro,version=9p2000.L,trans=virtio,msize=512000,cache=loose files /run/files",
        *(f"mount --bind /run/files{place} {place}" for place in map(shlex.quote, READ_ONCE)),
    ]
)


class NoMachine(Exception):
    """The virtual machine cannot be started here, and why."""


def kernel() -> Path:
    """The kernel's image. Raises ``NoMachine`` when it was not fetched."""
    found = sorted(KERNELS.glob("vmlinuz-*"))
    if not found:
        raise NoMachine(f"no kernel in {KERNELS}: run tests/vm/setup.sh")
    return found[-1]


@contextmanager
def machine(
    name: str, script: str, shared: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Boots with one processor, runs ``script`` as root in the checkout with ``shared`` writable,
    and powers off; ended with the block at the latest. Machines that run at a time have names of
    their own; what one prints is ``NAME.console`` in ``shared``.

    Raises ``NoMachine`` when there is nothing to boot.
    """
    exports = "; ".join(f"export {key}={shlex.quote(v)}" for key, v in environment.items())
    # In a file: the way in is the kernel's command line, of which everything past 2 KiB is lost.
    inside = shared / f"{name}.sh"
    inside.write_text(f"{PREPARE}\ncd {shlex.quote(str(ROOT))}; {exports}; {script}\n", "utf-8")
    command = [
        *(str(ROOT / ".venv/bin/vng"), "--disable-kvm", "--force-9p", "--verbose"),
        *("--run", str(kernel()), "--user", "root", "--cpus", "1", "--memory", MEMORY),
        *("--append", KERNEL_OPTIONS, f"--qemu-opts={HARDWARE}"),
        *(f"--rwdir={shared}", "--exec", f"sh {shlex.quote(str(inside))}"),
    ]
    own = {**os.environ, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    with (
        ended_with_us() as watch,
        (shared / f"{name}.console").open("wb") as console,
        subprocess.Popen(
            command,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
    ):
        watch(child.pid)
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


def compile_modules() -> None:
    """Ours as bytecode: an emulated processor would take longer for each than for a test."""
    words = ("-m", "compileall", "-q", "-j", "0", "-x", r"/\.", str(ROOT))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([str(ROOT / ".venv/bin/python"), *words], check=True, env=environment)


@contextmanager
def ended_with_us() -> Iterator[Callable[[int], object]]:
    """Gives a function that takes a process group. Somebody waits for the end of a pipe that only
    we hold, and ends the group then: a test run that is killed would leave the machine running.
    """
    reader, writer = os.pipe()
    script = 'read group; read _; [ -z "$group" ] || kill -KILL "-$group"'
    with subprocess.Popen(["sh", "-c", script], stdin=reader, start_new_session=True) as guard:
        os.close(reader)
        try:
            yield lambda group: os.write(writer, f"{group}\n".encode())
        finally:
            guard.kill()
            os.close(writer)
