"""Which WireGuard a device is made of, on a model of the kernel's links and a process's socket."""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from encryption import links, wireguard_userspace
from encryption.choose import open_device, remove_device
from model.kernel_numbers import DEVICE_WIREGUARD

MTU = 1420


class Kernel:
    """Links by name with their kind; ``refuses``: the error of who makes a WireGuard device."""

    def __init__(self, wanted: Path) -> None:
        self.kinds: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.refuses: OSError | None = None
        self.keeper = True  # makes the devices that are asked for in ``wanted``
        self._wanted = wanted

    def find(self, name: str) -> str | None:
        if self.keeper and (self._wanted / name).exists():
            self.kinds.setdefault(name, "tun")
        return name if name in self.kinds else None

    def kind(self, link: str) -> str:
        return self.kinds[link]

    def create(self, name: str, kind: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.kinds[name] = kind

    def is_ours(self, link: str) -> bool:
        return self.kinds[link] != "dummy"

    def adjust(self, name: str, mtu: int) -> int:
        assert mtu == MTU
        return self.numbers.setdefault(name, len(self.numbers) + 7)

    def delete(self, name: str) -> None:
        self.kinds.pop(name, None)
        self.numbers.pop(name, None)


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    return tmp_path / "wanted"


@pytest.fixture
def kernel(wanted: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    # A kernel has WireGuard or has not: what both answer can only be seen on a model of one.
    made = Kernel(wanted)
    for name in ("find", "kind", "is_ours", "create", "adjust", "delete"):
        monkeypatch.setattr(links, name, getattr(made, name))
    return made


@contextmanager
def wireguard_go(sockets: Path) -> Iterator[None]:
    """Answers whoever asks for the device, as a process without a key would."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(sockets / f"{DEVICE_WIREGUARD}.sock"))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(1 << 16) == b"end":
                    return
                connection.sendall(b"errno=0\n\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(listener.getsockname())
            last.sendall(b"end")
            thread.join()
        listener.close()
        os.unlink(sockets / f"{DEVICE_WIREGUARD}.sock")


def test_the_kernels_where_it_can(kernel: Kernel, wanted: Path, tmp_path: Path) -> None:
    """Nobody is asked for a process; opened again, it is the same device."""
    device, number = open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert (device.kind, device.name, number) == ("kernel", DEVICE_WIREGUARD, 7)
    assert kernel.kinds == {DEVICE_WIREGUARD: "wireguard"}
    assert not wanted.exists()
    again, number = open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert (again.kind, number) == ("kernel", 7)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOENT])
def test_userspace_where_the_kernel_cannot(
    kernel: Kernel, wanted: Path, tmp_path: Path, code: int
) -> None:
    """A process is asked for, by a file of the device's name."""
    kernel.refuses = OSError(code, "create device ist_wg0 of kind wireguard")
    with wireguard_go(tmp_path):
        device, number = open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert (device.kind, device.name, number) == ("userspace", DEVICE_WIREGUARD, 7)
    assert [path.name for path in wanted.iterdir()] == [DEVICE_WIREGUARD]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOMEM, errno.EBUSY])
def test_another_error_is_told_as_it_is(
    kernel: Kernel, wanted: Path, tmp_path: Path, code: int
) -> None:
    """A kernel that has WireGuard and fails must not end in another kind of device."""
    kernel.refuses = OSError(code, "create device ist_wg0 of kind wireguard")
    with pytest.raises(OSError, match="create device") as caught:
        open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert caught.value is kernel.refuses
    assert not wanted.exists()


def test_a_strangers_device_is_left_alone(kernel: Kernel, wanted: Path, tmp_path: Path) -> None:
    """Of our name, and of a kind that we never make."""
    kernel.kinds[DEVICE_WIREGUARD] = "dummy"
    with pytest.raises(FileExistsError, match="is no WireGuard device"):
        open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert kernel.kinds == {DEVICE_WIREGUARD: "dummy"}


def test_what_is_not_needed_any_more_goes(kernel: Kernel, wanted: Path, tmp_path: Path) -> None:
    """Of either kind, and nobody is asked to keep it; a stranger's stays."""
    assert not remove_device(DEVICE_WIREGUARD, wanted)
    open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert remove_device(DEVICE_WIREGUARD, wanted)
    kernel.refuses = OSError(errno.EOPNOTSUPP, "create device ist_wg0 of kind wireguard")
    with wireguard_go(tmp_path):
        open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert remove_device(DEVICE_WIREGUARD, wanted)
    assert (kernel.kinds, list(wanted.iterdir())) == ({}, [])
    kernel.kinds[DEVICE_WIREGUARD] = "dummy"
    assert not remove_device(DEVICE_WIREGUARD, wanted)
    assert kernel.kinds == {DEVICE_WIREGUARD: "dummy"}


def test_a_process_that_lives_is_taken_over(kernel: Kernel, wanted: Path, tmp_path: Path) -> None:
    """With its sessions, also where the kernel could do it by now."""
    kernel.kinds[DEVICE_WIREGUARD] = "tun"
    number = kernel.adjust(DEVICE_WIREGUARD, MTU)
    with wireguard_go(tmp_path):
        device, found = open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert (device.kind, found) == ("userspace", number)


def test_the_device_of_a_dead_process_makes_way(
    kernel: Kernel, wanted: Path, tmp_path: Path
) -> None:
    """Nobody is behind it: the kernel is asked as if there were none."""
    kernel.kinds[DEVICE_WIREGUARD] = "tun"
    kernel.keeper = False
    device, _ = open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert device.kind == "kernel"
    assert kernel.kinds == {DEVICE_WIREGUARD: "wireguard"}


def test_nobody_keeps_processes(
    kernel: Kernel, wanted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told with what is to be looked at, when it was waited for long enough."""
    monkeypatch.setattr(wireguard_userspace, "START_S", 0.0)
    kernel.refuses = OSError(errno.EOPNOTSUPP, "create device ist_wg0 of kind wireguard")
    kernel.keeper = False
    with pytest.raises(OSError, match="no wireguard-go serves ist_wg0") as caught:
        open_device(DEVICE_WIREGUARD, MTU, wanted, tmp_path)
    assert caught.value.errno == errno.ETIMEDOUT
