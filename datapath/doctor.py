"""What a node must have for the datapath to work: facts for `isthmus doctor`. Adapter; blocking.

Every probe looks at the real thing, changes nothing that stays, and answers even when it fails.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from datapath import libbpf, namespaces, netlink, pins, probes
from datapath.link_messages import NewLink
from datapath.runtime import DEFAULT_PIN_DIR
from model.kernel_numbers import VXLAN_PORT

_OLDEST_KERNEL = (5, 15)
_PROBE, _PROBE_PEER = NewLink("ist_probe"), NewLink("ist_probe_peer")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str  # empty when ``ok``
    blocking: bool  # nothing works without it


def facts() -> list[Fact]:
    """Everything, in the order in which a person should mend it."""
    return [_guarded(name, blocking, probe) for name, blocking, probe in _PROBES]


def _guarded(name: str, blocking: bool, probe: Callable[[], tuple[bool, str, str]]) -> Fact:
    try:
        ok, detail, remedy = probe()
    except OSError as error:
        ok, detail = False, str(error)
        denied = error.errno in (errno.EPERM, errno.EACCES)
        remedy = "run as root, with all capabilities" if denied else "see what the kernel says"
    return Fact(name, ok, detail, "" if ok else remedy, blocking)


def _kernel() -> tuple[bool, str, str]:
    release = os.uname().release
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    oldest = ".".join(map(str, _OLDEST_KERNEL))
    return (
        numbers >= _OLDEST_KERNEL,
        f"Linux {release}",
        f"boot Linux {oldest} or newer",
    )


def _root() -> tuple[bool, str, str]:
    return os.geteuid() == 0, f"user id {os.geteuid()}", "run as root (sudo)"


def _bpffs() -> tuple[bool, str, str]:
    parent = DEFAULT_PIN_DIR.parent
    mounted = parent.is_dir() and pins.is_bpffs(parent)
    detail = f"{parent} is {'a' if mounted else 'no'} bpffs"
    return mounted, detail, f"mount -t bpf bpf {parent}"


def _cgroup2() -> tuple[bool, str, str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.partition(" - ") for line in file]
    points = [left.split()[4] for left, _, right in lines if right.split()[0] == "cgroup2"]
    return (
        bool(points),
        f"mounted at {points[0]}" if points else "not mounted",
        "mount -t cgroup2 none /sys/fs/cgroup (or boot with systemd.unified_cgroup_hierarchy=1)",
    )


def _library() -> tuple[bool, str, str]:
    try:
        libbpf.library()
    except OSError as error:
        return False, str(error), "apt-get install libbpf1"
    return True, libbpf.LIBRARY, ""


def _programs() -> tuple[bool, str, str]:
    probes.load_nothing()
    return True, "a program was loaded", ""


def _tcx() -> tuple[bool, str, str]:
    has = probes.has_tcx()
    return (
        has,
        "tcx links" if has else "no tcx: filters at clsact are used instead",
        "boot Linux 6.6 or newer so that others cannot remove our programs by accident",
    )


def _device(
    kind: str, make: Callable[[netlink.Handle], None]
) -> Callable[[], tuple[bool, str, str]]:
    def probe() -> tuple[bool, str, str]:
        _in_scratch_namespace(kind, make)
        return True, f"a {kind} device was made", ""

    def told() -> tuple[bool, str, str]:
        try:
            return probe()
        except PermissionError:
            raise
        except OSError as error:
            return False, str(error), f"modprobe {kind}, or boot a kernel that has it"

    return told


def _in_scratch_namespace(kind: str, make: Callable[[netlink.Handle], None]) -> None:
    """Make a device where nobody sees it; the namespace ends with its thread."""

    def body() -> None:
        namespaces.leave_for_new()
        with netlink.Handle() as kernel, netlink.doing(f"create a {kind} device"):
            make(kernel)

    namespaces.run_apart(body)


_PROBES: tuple[tuple[str, bool, Callable[[], tuple[bool, str, str]]], ...] = (
    ("kernel", True, _kernel),
    ("root", True, _root),
    ("libbpf", True, _library),
    ("bpf programs", True, _programs),
    ("bpffs", True, _bpffs),
    ("cgroup v2", True, _cgroup2),
    ("veth", True, _device("veth", lambda k: k.add_pair(_PROBE, _PROBE_PEER))),
    ("vxlan", True, _device("vxlan", lambda k: k.add_vxlan(_PROBE, VXLAN_PORT))),
    ("tcx", False, _tcx),
)
