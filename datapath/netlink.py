"""The kernel's routing socket: devices, addresses, filters; errors that name the object. Adapter.

Blocking, each call well below a millisecond. A handle belongs to the network namespace of the
thread that opened it.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from datapath import filter_messages, link_messages, route_messages
from datapath.filter_messages import Filter
from datapath.link_messages import Link, LinkAddress, NewLink
from datapath.netlink_messages import DONE, ERROR, INTERRUPTED, Answer, answers, error_of
from datapath.route_messages import Route
from model.address import Address, Prefix

IFF_UP = 0x1
IFF_NOARP = 0x80
# The address is ours by allocation: waiting for a conflict is idle.
IFA_F_NODAD = 0x02
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253

_DATAGRAM: Final = 1 << 17  # the largest the kernel sends
_ATTEMPTS: Final = 10  # to list what changes meanwhile
_SOL_NETLINK, _CAP_ACK = 270, 10
_STATIC = 4  # the protocol of a route that nobody else tends


class NetlinkError(OSError):
    """The kernel said no; ``doing`` says to what."""

    def __init__(self, code: int) -> None:
        super().__init__(code, os.strerror(code))


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Turn the kernel's errors into ``OSError`` that says what was tried, on what."""
    try:
        yield
    except NetlinkError as error:
        code = error.errno or errno.EIO
        raise OSError(code, f"{what}: {os.strerror(code)}") from error


class Socket:
    """Bytes out, answers in."""

    def __init__(self) -> None:
        self.raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.raw.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an answer need not repeat the question
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def next(self) -> int:
        """The number of the next message."""
        self._sequence += 1
        return self._sequence

    def answers(self) -> Iterator[Answer]:
        """Without end: who asked knows what is the last."""
        while True:
            yield from answers(self.raw.recv(_DATAGRAM))

    def ask(self, make: Callable[[int], bytes]) -> Answer | None:
        """One message, and what it is answered by, if that is more than that it worked."""
        number = self.next()
        self.raw.send(make(number))
        for answer in self.answers():
            if answer.sequence != number:
                continue
            if answer.kind != ERROR:
                return answer
            if code := error_of(answer.body):
                raise NetlinkError(code)
            break
        return None

    def dump(self, make: Callable[[int], bytes], kind: int) -> list[memoryview]:
        """All that is listed, as it was at one moment."""
        for _ in range(_ATTEMPTS):
            found, whole = self._dumped(make, kind)
            if whole:
                return found
        raise NetlinkError(errno.EBUSY)

    def _dumped(self, make: Callable[[int], bytes], kind: int) -> tuple[list[memoryview], bool]:
        number, found, whole = self.next(), [], True
        self.raw.send(make(number))
        for answer in self.answers():
            if answer.sequence != number:
                continue
            whole = whole and not answer.flags & INTERRUPTED
            if answer.kind in (DONE, ERROR):
                if code := error_of(answer.body):
                    raise NetlinkError(code)
                break
            if answer.kind == kind:
                found.append(answer.body)
        return found, whole


class Handle(Socket):
    """Devices, their addresses and filters, in the calling thread's network namespace. Raises
    ``NetlinkError``."""

    def link(self, *, name: str = "", index: int = 0) -> Link:
        """One device."""
        answer = self.ask(lambda n: link_messages.get_link(n, name=name, index=index))
        if answer is None:
            raise NetlinkError(errno.ENODEV)
        return link_messages.read_link(answer.body)

    def links(self) -> list[Link]:
        """All devices."""
        found = self.dump(link_messages.dump_links, link_messages.NEW_LINK)
        return [link_messages.read_link(body) for body in found]

    def add_pair(self, link: NewLink, peer: NewLink) -> None:
        """A veth and its peer."""
        self.ask(lambda n: link_messages.pair(link, peer, n))

    def add_vxlan(self, link: NewLink, port: int) -> None:
        """One device for all tunnels."""
        self.ask(lambda n: link_messages.metadata_vxlan(link, port, n))

    def set_link(self, index: int, flags: int, *, mtu: int = 0, alias: str = "") -> None:
        """Flags are added to those that it has; 0 and empty: as it is."""
        self.ask(lambda n: link_messages.change(index, flags, mtu, alias, n))

    def delete_link(self, index: int) -> None:
        """With its peer, if it has one."""
        self.ask(lambda n: link_messages.delete_link(index, n))

    def addresses(self) -> list[LinkAddress]:
        """Of all devices."""
        found = self.dump(link_messages.dump_addresses, link_messages.NEW_ADDRESS)
        rows = (link_messages.read_address(body) for body in found)
        return [row for row in rows if row is not None]

    def add_address(
        self,
        device: int,
        address: Address,
        *,
        scope: int = SCOPE_UNIVERSE,
        flags: int = 0,
        deprecated: bool = False,
    ) -> None:
        """One address without a network."""
        self.ask(lambda n: link_messages.add_address(device, address, scope, flags, deprecated, n))

    def delete_address(self, row: LinkAddress) -> None:
        """Take one from its device."""
        self.ask(lambda n: link_messages.delete_address(row, n))

    def add_route(self, prefix: Prefix, route: Route) -> None:
        """To the main table."""
        self.ask(lambda n: route_messages.write(prefix, route, _STATIC, n))

    def add_clsact(self, device: int) -> None:
        """The place where filters are."""
        self.ask(lambda n: filter_messages.add_clsact(device, n))

    def filters(self, device: int, parent: int) -> list[Filter]:
        """All of one direction."""
        found = self.dump(
            lambda n: filter_messages.dump(device, parent, n), filter_messages.NEW_FILTER
        )
        return [filter_messages.read(body) for body in found]

    def replace_filter(
        self, device: int, parent: int, priority: int, program: int, name: str
    ) -> None:
        """Put a program there, in place of what is there."""
        self.ask(lambda n: filter_messages.replace(device, parent, priority, program, name, n))

    def delete_filter(self, device: int, parent: int, found: Filter) -> None:
        """Take all of its priority away."""
        self.ask(lambda n: filter_messages.delete(device, parent, found, n))


def find_link(kernel: Handle, name: str) -> Link | None:
    """The device of that name, or ``None``."""
    try:
        return kernel.link(name=name)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise OSError(error.errno, f"look-up of device {name}: {error.strerror}") from error
