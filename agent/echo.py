"""ICMP echo: who answers? Adapter around one raw socket.

Any node answers it, ours and those of other implementations, without a process of its own.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Collection
from contextlib import suppress

from model.address import Address, parse_address

_SOL_RAW, _ICMP_FILTER = 255, 1  # linux/icmp.h
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_HEADER = struct.Struct("!BBHHH8s")  # type, code, checksum, identifier, sequence, secret
_BURST, _BURST_GAP_S = 16, 0.01  # requests that are sent at once, and then a pause


class Echo:
    """Asks addresses, several at once. Needs the right to open a raw socket (``OSError``)."""

    def __init__(self, mark: Callable[[Address], int] = lambda address: 0) -> None:
        """``mark``: of the packets that ask an address."""
        self._mark = mark
        self._identifier, self._secret = os.getpid() & 0xFFFF, os.urandom(8)
        self._sequence = 0
        self._asked = 0
        self._waiting: dict[Address, float] = {}  # asked, and when first
        self._answers: dict[Address, float] = {}
        self._settled = asyncio.Event()  # all that were asked have answered
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        refused = struct.pack("=I", 0xFFFFFFFF & ~(1 << _ECHO_REPLY))
        self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, refused)

    def close(self) -> None:
        """No more answers."""
        self._socket.close()

    async def ask(
        self, addresses: Collection[Address], attempts: int = 3, gap_s: float = 0.4
    ) -> dict[Address, float]:
        """Those that answer, and after how many seconds since they were first asked.

        IPv4 only. Each is asked so often until it answers; one call at a time.
        """
        loop = asyncio.get_running_loop()
        self._waiting, self._answers = {}, {}
        self._settled.clear()
        self._asked = len(set(addresses))
        loop.add_reader(self._socket, self._read, loop)
        try:
            for _ in range(attempts):
                missing = [a for a in dict.fromkeys(addresses) if a not in self._answers]
                if not missing:
                    break
                for place in range(0, len(missing), _BURST):
                    for address in missing[place : place + _BURST]:
                        self._waiting.setdefault(address, loop.time())
                        self._send(address)
                    await asyncio.sleep(_BURST_GAP_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(gap_s):
                        await self._settled.wait()
            return self._answers
        finally:
            loop.remove_reader(self._socket)

    def _send(self, address: Address) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        words = (self._identifier, self._sequence, self._secret)
        request = _HEADER.pack(_ECHO_REQUEST, 0, 0, *words)
        request = _HEADER.pack(_ECHO_REQUEST, 0, _checksum(request), *words)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark(address))
            self._socket.sendto(request, (str(address), 0))
        except OSError:
            return  # no way there, or no room for it: like a request that got lost

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                packet, sender = self._socket.recvfrom(256)
            except OSError:  # no more of them, or an error about one we sent
                return
            length = (packet[0] & 15) * 4
            if len(packet) < length + _HEADER.size:
                continue
            kind, _, _, identifier, _, secret = _HEADER.unpack_from(packet, length)
            if (kind, identifier, secret) != (_ECHO_REPLY, self._identifier, self._secret):
                continue
            address = parse_address(sender[0])
            if address in self._waiting and address not in self._answers:
                self._answers[address] = loop.time() - self._waiting[address]
                if len(self._answers) == self._asked:
                    self._settled.set()


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    folded = (total + (total >> 16)) & 0xFFFF
    return 0xFFFF - folded
