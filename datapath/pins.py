"""The pin directory: what keeps packets flowing while no agent runs. Adapter; blocking.

    <pin_dir>/maps/<map>                       shared by all programs and generations
    <pin_dir>/links/<program>@<hook>@<device>  a tcx link; it is updated and never detached

bpffs reserves dots in names, so they are written as `:`; docs/adr/0021.
"""

import contextlib
import errno
import os
from pathlib import Path

from datapath import syscall


def map_pin(pin_dir: Path, name: str) -> Path:
    """Where a map is pinned."""
    return pin_dir / "maps" / name


def link_pin(pin_dir: Path, program: str, hook: str, device: str) -> Path:
    """Where the link of a program at a hook of a device is pinned."""
    return pin_dir / "links" / f"{program}@{hook}@{device.replace('.', ':')}"


def parse_link_pin(path: Path) -> tuple[str, str, str] | None:
    """Program, hook and device; ``None`` for a name that is not ours."""
    parts = path.name.split("@")
    return (parts[0], parts[1], parts[2].replace(":", ".")) if len(parts) == 3 else None


def prepare(pin_dir: Path) -> None:
    """Make the directories. ``OSError`` with the remedy when this is no bpffs."""
    for path in (pin_dir / "maps", pin_dir / "links"):
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OSError(
                error.errno,
                f"make pin directory {path}: {error.strerror}; is a bpffs mounted above it? "
                "(mount -t bpf bpf /sys/fs/bpf)",
            ) from error
    if not is_bpffs(pin_dir):
        raise OSError(
            errno.EINVAL,
            f"pin directory {pin_dir} is not in a bpffs: mount -t bpf bpf /sys/fs/bpf",
        )


def is_bpffs(path: Path) -> bool:
    """True below a bpffs; only that takes a pin. The longest mount point above the path decides."""
    best, kind = "", ""
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            point = left.split()[4]
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, right.split()[0]
    return kind == "bpf"


def open_pinned(path: Path) -> int | None:
    """A descriptor, or ``None`` when nothing is pinned there."""
    try:
        return syscall.get_pinned(str(path))
    except FileNotFoundError:
        return None


def replace_pin(fd: int, path: Path) -> None:
    """Pin under a name that another object may hold; the other loses its pin first."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    syscall.pin(fd, str(path))


def remove_tree(pin_dir: Path) -> None:
    """Unpin everything below, and the directory. Programs detach when their last pin goes."""
    if not pin_dir.is_dir():
        return
    # Links first: a program that still runs must not find its maps half gone.
    for part in ("links", "maps"):
        for path in sorted((pin_dir / part).glob("*")):
            path.unlink()
        with contextlib.suppress(FileNotFoundError):
            (pin_dir / part).rmdir()
    with contextlib.suppress(OSError):  # strangers' pins may lie here
        pin_dir.rmdir()
