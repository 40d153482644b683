"""Work inside another network namespace, without a second process. Adapter.

A thread of its own enters the namespace and ends there, so nothing has to find its way back, and an
error half-way cannot leave the agent's other threads in a pod.
"""

import ctypes
import os
import threading
from collections.abc import Callable
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
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                enter(fd, path)
            finally:
                os.close(fd)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="in-namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
