"""System calls that Python 3.11 does not wrap: namespaces and mounts. Adapter.

They are used between ``fork`` and ``exec`` of the runtime, so nothing here imports more than the
standard library or starts a thread.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 2

# No wrapper of the C library exists for pivot_root; the numbers are the kernel's per machine.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MAX_SYMLINKS = 40  # the kernel's own limit

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Give the calling process namespaces of its own."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int = 0) -> None:
    """Enter the namespace behind an open file."""
    _check(_libc.setns(fd, kind), "setns")


def enter(path: str, kind: int = 0) -> None:
    """Enter the namespace that a file stands for, such as ``/run/netns/NAME``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, kind), f"setns {path}")
    finally:
        os.close(fd)


def sethostname(name: str) -> None:
    """Set the host name of the current UTS namespace."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), f"sethostname {name}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2); empty texts are passed as NULL."""
    result = _libc.mount(
        source.encode() or None,
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {source or kind} on {target}")


def unmount(target: str) -> None:
    """Detach a mount; it goes away when its last user does."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot(root: str) -> None:
    """Make ``root`` the root of this mount namespace and drop everything outside it."""
    os.chdir(root)
    number = _PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(number, b".", b"."), f"pivot_root {root}")
    unmount(".")
    os.chdir("/")


def mounts_below(prefix: str) -> list[str]:
    """The mount points at or below a path, deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def resolve_in(root: str, path: str) -> str:
    """The place of an absolute path inside a root, following links as if that root were ``/``."""
    pending = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == ".":
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = "/".join([root, *done, part])
        if os.path.islink(here):
            links += 1
            if links > _MAX_SYMLINKS:
                raise OSError(f"too many symbolic links in {path} below {root}")
            target = os.readlink(here)
            if target.startswith("/"):
                done = []
            pending = [p for p in target.split("/") if p] + pending
            continue
        done.append(part)
    return "/".join([root, *done])


@dataclass(frozen=True, slots=True)
class Bind:
    """One directory or file of elsewhere that appears inside a container."""

    source: str
    target: str  # absolute, inside the container
    read_only: bool = False
    propagation: str = ""  # "": private; "slave": later mounts below the source appear here too


def bind(root: str, spec: Bind) -> None:
    """Bind one path into a root, making the mount point."""
    target = resolve_in(root, spec.target)
    if os.path.isdir(spec.source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            with open(target, "w"):
                pass
    mount(spec.source, target, flags=MS_BIND | MS_REC)
    mount("", target, flags=(MS_SLAVE if spec.propagation == "slave" else MS_PRIVATE) | MS_REC)
    if spec.read_only:
        mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def overlay(scratch: str) -> str:
    """Mount a private, writable view of the host's root; returns where.

    The upper layer is a memory file system mounted on ``scratch``: a directory below the lower
    layer is refused by the kernel, and in a private mount namespace it ends with its last process.
    """
    mount("tmpfs", scratch, "tmpfs", data="mode=755")
    for name in ("upper", "work", "root", "run", "tmp"):
        os.mkdir(f"{scratch}/{name}")
    os.chmod(f"{scratch}/tmp", 0o1777)
    root = f"{scratch}/root"
    options = f"lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work"
    mount("overlay", root, "overlay", data=options)
    return root


def furnish(root: str, scratch: str, keep: list[str], cgroup_mount: str) -> None:
    """Mount what a process expects below a root: /proc, /dev, /sys, own /run and /tmp.

    ``keep`` names directories of the host (the checkout, the interpreter) that must be seen even
    when they lie on a file system of their own, which the overlay does not show.
    """
    mount("/proc", f"{root}/proc", flags=MS_BIND | MS_REC)
    mount("/dev", f"{root}/dev", flags=MS_BIND | MS_REC)
    mount("sysfs", f"{root}/sys", "sysfs")  # of the network namespace of the caller
    if cgroup_mount:
        mount("tmpfs", f"{root}/sys/fs/cgroup", "tmpfs", data="mode=755")
        mount(cgroup_mount, f"{root}/sys/fs/cgroup", flags=MS_BIND)
    mount(f"{scratch}/run", f"{root}/run", flags=MS_BIND)
    mount(f"{scratch}/tmp", f"{root}/tmp", flags=MS_BIND)
    device = os.stat("/").st_dev
    for path in keep:
        if os.stat(path).st_dev != device or path.startswith(("/run/", "/tmp/")):
            bind(root, Bind(path, path, propagation="slave"))
