"""The sockets of a client: a vanished peer is noticed, and an end is waited for. Adapter."""

import asyncio
import socket
import weakref
from typing import Any, Final

# A peer that vanished without a word is found after 15 + 3 * 5 s also on an idle watch.
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
GOODBYE_S: Final = 0.5  # that a peer has to answer the end of TLS
_LOOK_S: Final = 0.005


class Sockets:
    """Makes the sockets of one client."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def make(self, address: tuple[Any, ...]) -> socket.socket:
        """Not connected yet; ``address`` is what ``getaddrinfo`` gives."""
        family, kind, protocol, *_ = address
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        self._made.add(made)
        return made

    async def closed(self) -> None:
        """Wait for those that were closed but still say goodbye: the loop may end after this."""
        deadline = asyncio.get_running_loop().time() + GOODBYE_S
        while any(one.fileno() >= 0 for one in self._made):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_LOOK_S)
