"""Whether ESP passes between this node and others before anything depends on it. Adapter.

An ICMP echo with the mark of what is encrypted for a node leaves as ESP; only a node that decrypts
it answers, in clear text: nodes' own traffic. So key, states, policies and the way between the two
are proven while all senders still use another kind (docs/adr/0198).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.echo import Echo
from encryption.migration import PROVEN_S
from model.address import Address

log = logging.getLogger("isthmus.agent.ipsec")

SOON_S, LATER_S = 1.0, 20.0  # between rounds: while somebody is not proven, and when all are


class IpsecProof:
    """Who has answered, and when."""

    def __init__(
        self, call: Callable[..., Awaitable[Any]], marks: Callable[[], Mapping[Address, int]]
    ) -> None:
        """``call``: runs in the node's network namespace. ``marks``: of packets to an address of
        each node that could decrypt.
        """
        self._call, self._marks = call, marks
        self._answered_s: dict[Address, float] = {}

    def is_proven(self, address: Address) -> bool:
        """Whether a node has decrypted what we sent, lately."""
        return time.monotonic() - self._answered_s.get(address, -PROVEN_S) < PROVEN_S

    async def run(self) -> None:
        """Until cancelled."""
        asked: Mapping[Address, int] = {}
        echo: Echo = await self._call(Echo, lambda address: asked[address])
        try:
            while True:
                asked = self._marks()
                for address in await echo.ask(asked):
                    self._answered_s[address] = time.monotonic()
                unproven = [address for address in asked if not self.is_proven(address)]
                if unproven:
                    log.debug("event=ipsec-unproven nodes=%d", len(unproven))
                await asyncio.sleep(SOON_S if unproven or not asked else LATER_S)
        finally:
            echo.close()
