"""Programs onto devices: pinned tcx links, or clsact filters below kernel 6.6. Adapter; blocking.

A program in use is replaced in place, by a link update or a filter replacement: taking off and
putting on again was measured to lose every packet for 12 to 24 ms.
"""

import contextlib
import errno
import os
import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from datapath import netlink, pins, syscall
from datapath.filter_messages import Filter
from datapath.syscall import AttachType

_FILTER_PRIORITY = 1
_NAME_PREFIX = "isthmus_"  # of filters of ours; the program's name follows
_PARENTS = {AttachType.TCX_INGRESS: 0xFFFFFFF2, AttachType.TCX_EGRESS: 0xFFFFFFF3}
_HOOKS = {AttachType.TCX_INGRESS: "ingress", AttachType.TCX_EGRESS: "egress"}
_ATTACH = {name: attach for attach, name in _HOOKS.items()}
_GONE = frozenset({errno.ENOLINK, errno.ENODEV})


class AttachMode(Enum):
    """How programs are held on a device."""

    TCX = "tcx"
    CLSACT = "clsact"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One program at one hook of one device."""

    program: str
    attach: AttachType
    device: str


class Attacher:
    """Attaches, replaces and detaches, in the network namespace of the calling thread."""

    def __init__(self, pin_dir: Path, mode: AttachMode) -> None:
        self._pin_dir = pin_dir
        self.mode = mode

    def attach(self, wanted: Attachment, program: int) -> None:
        """Make it so, whatever was there of ours. Without a gap if it is attached already."""
        if self.mode is AttachMode.TCX:
            self._attach_tcx(wanted, program)
            _remove_filter(wanted)  # of a time when this kernel had no tcx
        else:
            _replace_filter(wanted, program)

    def detach(self, wanted: Attachment) -> None:
        """Take it off. No error when it or the device is gone."""
        path = self._pin(wanted)
        link = pins.open_pinned(path)
        if link is not None:
            try:
                with contextlib.suppress(OSError):
                    syscall.link_detach(link)
                path.unlink()
            finally:
                os.close(link)
        _remove_filter(wanted)

    def attached(self) -> list[Attachment]:
        """What links are pinned, whether or not their devices still live; and filters of ours."""
        found = _own_filters() if self.mode is AttachMode.CLSACT else []
        for path in sorted((self._pin_dir / "links").glob("*")):
            parts = pins.parse_link_pin(path)
            if parts is not None and parts[1] in _ATTACH:
                found.append(Attachment(parts[0], _ATTACH[parts[1]], parts[2]))
        return found

    def is_live(self, wanted: Attachment) -> bool:
        """True when the program runs on the device of that name that exists now."""
        if self.mode is AttachMode.CLSACT:
            return _has_filter(wanted)
        link = pins.open_pinned(self._pin(wanted))
        if link is None:
            return False
        try:
            return syscall.link_info(link).ifindex == _ifindex(wanted.device)
        except OSError:
            return False
        finally:
            os.close(link)

    def drop_dead(self) -> list[Attachment]:
        """Unpin links whose device is gone. Returns them."""
        dead = [a for a in self.attached() if not self.is_live(a)]
        for attachment in dead:
            self.detach(attachment)
        return dead

    def _pin(self, wanted: Attachment) -> Path:
        return pins.link_pin(self._pin_dir, wanted.program, _HOOKS[wanted.attach], wanted.device)

    def _attach_tcx(self, wanted: Attachment, program: int) -> None:
        path, ifindex = self._pin(wanted), _ifindex(wanted.device)
        link = pins.open_pinned(path)
        if link is not None:
            try:
                if syscall.link_info(link).ifindex == ifindex:
                    syscall.link_update(link, program)
                    return
            except OSError as error:
                if error.errno not in _GONE:
                    raise
            finally:
                os.close(link)
            path.unlink()  # of an earlier device of this name
        link = syscall.link_create(program, ifindex, wanted.attach)
        try:
            syscall.pin(link, str(path))
        finally:
            os.close(link)


def _ifindex(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise OSError(errno.ENODEV, f"attach: there is no device {device}") from error


def _filter_name(wanted: Attachment) -> str:
    return f"{_NAME_PREFIX}{wanted.program}"


def _filters(kernel: netlink.Handle, ifindex: int, wanted: Attachment) -> list[Filter]:
    with netlink.doing(f"list filters of {wanted.device}"):
        return kernel.filters(ifindex, _PARENTS[wanted.attach])


def _is_ours(found: Filter, wanted: Attachment) -> bool:
    return found.name is not None and found.name.startswith(_filter_name(wanted))


def _own_filters() -> list[Attachment]:
    """Every filter of ours on any device."""
    with netlink.Handle() as kernel:
        with netlink.doing("list devices"):
            devices = [(link.index, link.name) for link in kernel.links()]
        return [
            Attachment(program, attach, device)
            for index, device in devices
            for attach in _PARENTS
            for program in _own_programs(kernel, index, attach)
        ]


def _own_programs(kernel: netlink.Handle, ifindex: int, attach: AttachType) -> list[str]:
    try:
        filters = kernel.filters(ifindex, _PARENTS[attach])
    except netlink.NetlinkError:
        return []  # a device without clsact has none
    names = [found.name or "" for found in filters if found.handle]
    return [name.removeprefix(_NAME_PREFIX) for name in names if name.startswith(_NAME_PREFIX)]


def _has_filter(wanted: Attachment) -> bool:
    try:
        ifindex = socket.if_nametoindex(wanted.device)
    except OSError:
        return False
    with netlink.Handle() as kernel:
        return wanted.program in _own_programs(kernel, ifindex, wanted.attach)


def _replace_filter(wanted: Attachment, program: int) -> None:
    ifindex = _ifindex(wanted.device)
    with netlink.Handle() as kernel:
        try:
            with netlink.doing(f"add clsact to {wanted.device}"):
                kernel.add_clsact(ifindex)
        except FileExistsError:
            pass  # a stranger's filters may live there too; ours has its own priority
        for found in _filters(kernel, ifindex, wanted):
            taken = found.priority == _FILTER_PRIORITY and found.handle == 1
            if taken and not _is_ours(found, wanted):
                raise FileExistsError(
                    errno.EEXIST,
                    f"device {wanted.device} has a filter of another owner at priority "
                    f"{_FILTER_PRIORITY}, handle 1: move it to another priority",
                )
        with netlink.doing(f"replace filter {wanted.program} of {wanted.device}"):
            name, parent = _filter_name(wanted), _PARENTS[wanted.attach]
            kernel.replace_filter(ifindex, parent, _FILTER_PRIORITY, program, name)


def _remove_filter(wanted: Attachment) -> None:
    """Only ours is removed: it is known by the name it was given."""
    try:
        ifindex = socket.if_nametoindex(wanted.device)
    except OSError:
        return
    with netlink.Handle() as kernel:
        try:
            filters = _filters(kernel, ifindex, wanted)
        except OSError:
            return  # a device without clsact has none
        for found in filters:
            if found.handle and _is_ours(found, wanted):
                with netlink.doing(f"delete filter {wanted.program} of {wanted.device}"):
                    kernel.delete_filter(ifindex, _PARENTS[wanted.attach], found)
