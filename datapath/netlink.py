"""The few netlink calls we need, with errors as ``OSError`` that name the object. Adapter.

Blocking, each well below a millisecond. A handle belongs to the thread that opened it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

# The library has no types; this is the one place that says so.
Handle: TypeAlias = Any
Message: TypeAlias = Any

IFF_UP = 0x1
IFF_NOARP = 0x80
# The address is ours by allocation: waiting for a conflict is idle.
IFA_F_NODAD = 0x02
SCOPE_LINK = 253
SCOPE_NOWHERE = 255
TABLE_MAIN = 254


@contextmanager
def handle() -> Iterator[Handle]:
    """An open socket in the calling thread's network namespace."""
    opened = IPRoute()
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Turn errors of the library into ``OSError`` that says what was tried, on what."""
    try:
        yield
    except NetlinkError as error:
        code = error.code or errno.EIO
        raise OSError(code, f"{what}: {os.strerror(code)}") from error


def find_link(ipr: Handle, name: str) -> Message | None:
    """The device of that name, or ``None``."""
    try:
        found = list(ipr.link("get", ifname=name))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise OSError(error.code or errno.EIO, f"look-up of device {name}: {error}") from error
    return found[0] if found else None


def link_kind(link: Message) -> str | None:
    """`veth`, `vxlan`, ...; ``None`` for a device without a kind."""
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info is not None else None
