"""What a machine must have besides the kernel: programs, built files, Python packages. Adapter.

The kernel's part is ``datapath.doctor``. Nothing here changes anything.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from datapath import programs
from datapath.doctor import Fact, facts
from datapath.runtime import default_object_dir

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;,]+)$")
# Debian puts some of these where only root's PATH looks.
_SEARCH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
CNI_PLUGIN = Path(__file__).resolve().parent.parent / "cni" / "build" / "cilium-cni"
PROGRAMS = (
    ("etcd", "apt-get install etcd-server", True),  # no mesh store without it
    ("kubectl", "apt-get install kubernetes-client", False),
    ("clang", "apt-get install clang", False),  # only to build
    ("bpftool", "apt-get install bpftool", False),  # only to look
)


def everything() -> list[Fact]:
    """The kernel first, in the order in which a person should mend it."""
    objects = default_object_dir()
    return [
        *facts(),
        *(program(name, remedy, blocking) for name, remedy, blocking in PROGRAMS),
        built("eBPF objects", [objects / f"{name}.bpf.o" for name in programs.PROGRAMS]),
        built("CNI plugin", [CNI_PLUGIN], executable=True),
        packages(metadata.requires("isthmus") or ()),
    ]


def program(name: str, remedy: str, blocking: bool, search: str | None = None) -> Fact:
    """Is a program there? ``search`` replaces the PATH."""
    where = search or os.pathsep.join([os.environ.get("PATH", os.defpath), *_SEARCH])
    found = shutil.which(name, path=where)
    return Fact(name, found is not None, found or "not found", "" if found else remedy, blocking)


def built(name: str, paths: Sequence[Path], executable: bool = False) -> Fact:
    """Were these files built?"""
    mode = os.X_OK if executable else os.R_OK
    missing = [path for path in paths if not (path.is_file() and os.access(path, mode))]
    if missing:
        what = ", ".join(str(path) for path in missing)
        return Fact(name, False, f"missing: {what}", "make build", True)
    names = ", ".join(path.name for path in paths)
    return Fact(name, True, f"{names} in {paths[0].parent}", "", True)


def packages(
    requirements: Iterable[str], installed: Callable[[str], str] = metadata.version
) -> Fact:
    """Are the packages we run with there, in the versions we tested? Those of extras do not count.

    Another version is worth a word; an absent package stops us.
    """
    pinned = [found.groups() for text in requirements if (found := _PINNED.match(text.strip()))]
    absent, other = [], []
    for name, wanted in pinned:
        try:
            version = installed(name)
        except metadata.PackageNotFoundError:
            absent.append(f"{name} {wanted}")
            continue
        if version != wanted:
            other.append(f"{name} {version} (pinned {wanted})")
    words = [f"missing: {', '.join(absent)}"] if absent else []
    words += [f"other versions: {', '.join(other)}"] if other else []
    well = bool(pinned) and not words
    detail = "; ".join(words) or f"{len(pinned)} at their pinned versions"
    return Fact(
        "Python packages",
        well,
        detail if pinned else "the distribution isthmus names no versions: is it installed?",
        "" if well else "make setup",
        bool(absent) or not pinned,
    )
