"""Image names and what runs for them on the machine's own file system. Pure.

The last part of the name decides, registry, tag and digest do not matter:
``docker.io/nginx:1.15.8`` is ``nginx``. An image that is not in the table can still be used with
a ``command``.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """The entry point of an image; empty: the pod must say what to run."""

    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


PYTHON = "{python}"  # replaced by the lab's interpreter
_LIGHT = (PYTHON, "-I", "-S")  # without site-packages: starts in 20 ms
_SLEEP = Image(("sleep", "infinity"))
_OURS = Image()

TABLE: dict[str, Image] = {
    # Our own programs: the manifests name the command.
    "isthmus": _OURS,
    "cilium": _OURS,
    "operator": _OURS,
    "operator-generic": _OURS,
    "clustermesh-apiserver": _OURS,
    "coredns": Image((PYTHON, "-m", "kind.dns")),
    # Real binaries of the machine.
    "etcd": Image(("etcd",)),
    # Workloads for examples.
    "nginx": Image((*_LIGHT, "{checkout}/kind/images/static.py"), ("80",)),
    "httpd": Image((*_LIGHT, "{checkout}/kind/images/static.py"), ("80",)),
    "json-mock": Image((*_LIGHT, "{checkout}/kind/images/echo.py"), ("80",)),
    "echo": Image((*_LIGHT, "{checkout}/kind/images/echo.py"), ("8080",)),
    # Clients: they wait to be told what to do by ``exec``.
    "netshoot": _SLEEP,
    "curl": _SLEEP,
    "alpine-curl": _SLEEP,
    "busybox": _SLEEP,
    "alpine": _SLEEP,
    "debian": _SLEEP,
    "ubuntu": _SLEEP,
    "pause": _SLEEP,
}


def short_name(image: str) -> str:
    """The last part of an image name, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def entry_point(
    image: str, has_command: bool, python: str, checkout: str
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Command and arguments of an image; ``None`` when the lab cannot run it."""
    known = TABLE.get(short_name(image))
    if known is None:
        return ((), ()) if has_command else None
    if not known.command and not has_command:
        return None

    def filled(words: Sequence[str]) -> list[str]:
        return [word.format(python=python, checkout=checkout) for word in words]

    return filled(known.command), filled(known.args)


def unknown_message(image: str) -> str:
    """What a person is told about an image without an entry point."""
    return (
        f'the lab has no image "{image}" and downloads none: give the container a command, '
        f"or use one of {', '.join(sorted(name for name, item in TABLE.items() if item.command))}"
    )
