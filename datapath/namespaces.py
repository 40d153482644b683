"""Work inside another network namespace, without a second process. Adapter.

A thread of its own enters the namespace and ends there, so nothing has to find its way back, and an
error half-way cannot leave the agent's other threads in a pod.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]


def enter(fd: int, what: str) -> None:
    """Move the calling thread into a network namespace, for good."""
    if _libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns into network namespace {what}: {os.strerror(code)}")


def leave_for_new() -> None:
    """Move the calling thread into a network namespace that ends with it."""
    if _libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"unshare of the network namespace: {os.strerror(code)}")


def run_inside(path: str, work: Callable[[], T]) -> T:
    """Call ``work`` in the network namespace at ``path``; its result or error becomes ours."""

    def body() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(fd, path)
        finally:
            os.close(fd)
        return work()

    return run_apart(body)


def run_apart(work: Callable[[], T]) -> T:
    """Call ``work`` in a thread that ends with it, so that what it enters it need not leave."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace") as pool:
        return pool.submit(work).result()
