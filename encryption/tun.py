"""TUN devices whose packets the kernel joins, for a ``wireguard-go`` that does not. Adapter.

Up to version 0.0.20220316 ``wireguard-go`` hands over one packet at a time, and each goes through
the node's stack alone. A device opened with NAPI joins the segments of a stream (GRO) first, those
inside VXLAN too. Later versions join in their own process, on a device of another kind, which they
must open themselves.
"""

import fcntl
import os
import re
import struct
from pathlib import Path

# For so long after a segment the kernel waits for the next one of its stream. Whatever ends what a
# sender had to say (PSH, FIN, a shorter segment), acknowledgements and other protocols wait for
# nothing.
JOIN_WAIT_NS = 100_000

_VERSION = re.compile(r"wireguard-go v?(\d+)\.(\d+)\.(\d+)")
_JOINS_ITSELF = (0, 0, 20230223)
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NAPI = 0x0001, 0x0010  # with the packet information that old versions expect
_IFREQ = struct.Struct("16sH22x")


def is_needed(version: str) -> bool:
    """By what ``wireguard-go --version`` says; what is not understood opens its device itself."""
    found = _VERSION.search(version)
    return found is not None and tuple(map(int, found.groups())) < _JOINS_ITSELF


def opened(name: str) -> int:
    """A descriptor of a new device, which lives as long as somebody has it. Raises ``OSError``."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NAPI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def wait_for_more(name: str) -> None:
    """Without it the kernel joins only what comes in one go, which is nothing.

    Raises ``OSError`` where ``/sys`` cannot be written, or is not of this network namespace.
    """
    Path(f"/sys/class/net/{name}/gro_flush_timeout").write_text(str(JOIN_WAIT_NS))
