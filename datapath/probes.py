"""What this kernel can do, found by trying. Adapter; blocking, leaves nothing behind."""

import errno
import os
from functools import cache

from datapath import syscall
from datapath.syscall import AttachType

# r0 = 0; exit
_RETURN_ZERO = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0]) + bytes([0x95, 0, 0, 0, 0, 0, 0, 0])


def _load() -> int:
    return syscall.program_load(syscall.PROG_TYPE_SCHED_CLS, _RETURN_ZERO, name="ist_probe")


def load_nothing() -> None:
    """Load the smallest program and let it go. ``OSError`` when bpf(2) is closed to us."""
    os.close(_load())


@cache
def has_tcx() -> bool:
    """True from Linux 6.6 on: the kernel gets as far as looking for the device."""
    program = _load()
    try:
        # No device has the highest number, so nothing is attached even where this is known.
        link = syscall.link_create(program, 0x7FFFFFFF, AttachType.TCX_INGRESS)
    except OSError as error:
        return error.errno == errno.ENODEV
    finally:
        os.close(program)
    os.close(link)
    return True
