"""Which WireGuard a device is made of: the kernel's where there is one. Adapter; blocking."""

from pathlib import Path

from encryption import links
from encryption.wireguard import Device
from encryption.wireguard_kernel import KernelDevice, is_absent
from encryption.wireguard_userspace import SOCKETS, UserspaceDevice


def open_device(name: str, mtu: int, wanted: Path, sockets: Path = SOCKETS) -> tuple[Device, int]:
    """The device and its ifindex; one that exists is taken over with its sessions.

    ``wanted``: where userspace processes are asked for. Raises ``OSError``.
    """
    userspace, kernel = UserspaceDevice(name, wanted, sockets), KernelDevice(name)
    found = links.find(name)
    if found is not None and links.kind(found) == "tun":
        if userspace.answers():
            return userspace, userspace.ensure(mtu)
        links.delete(name)
    try:
        return kernel, kernel.ensure(mtu)
    except OSError as error:
        if not is_absent(error):
            raise
    return userspace, userspace.ensure(mtu)


def remove_device(name: str, wanted: Path) -> bool:
    """Take a device of ours away with its key and sessions, whoever made it; was there one?

    Raises ``OSError``.
    """
    (wanted / name).unlink(missing_ok=True)
    found = links.find(name)
    if found is None or not links.is_ours(found):
        return False
    links.delete(name)
    return True
