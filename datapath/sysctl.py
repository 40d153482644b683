"""Kernel settings of the calling thread's network namespace. Adapter."""

import os

_ROOT = "/proc/sys"


def _path(name: str) -> str:
    # Device names may hold dots, so only the first three separators of `net.ipv4.conf.` are cut.
    if name.startswith("net.") and ".conf." in name:
        head, rest = name.split(".conf.", 1)
        device, setting = rest.rsplit(".", 1)
        return os.path.join(_ROOT, *head.split("."), "conf", device, setting)
    return os.path.join(_ROOT, *name.split("."))


def read(name: str) -> str:
    """The value without the line end. ``FileNotFoundError`` when the kernel has no such setting."""
    with open(_path(name), encoding="ascii") as file:
        return file.read().strip()


def write(name: str, value: str) -> None:
    """Set a value unless it is set already, so that a read-only `/proc/sys` is no error then."""
    if read(name) == value:
        return
    try:
        with open(_path(name), "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise OSError(
            error.errno, f"set sysctl {name}={value}: {error.strerror}; set it on the node"
        ) from error


def write_if_present(name: str, value: str) -> None:
    """As ``write``; a kernel without the setting (no IPv6, no JIT) has nothing to set."""
    try:
        write(name, value)
    except FileNotFoundError:
        return
