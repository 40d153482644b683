"""The rotation of this node's WireGuard key. Adapter: ``encryption.rotation`` decides.

Looks four times a second while keys change anywhere in the mesh, else every five seconds.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agent.encryption import Opened, WireguardNode
from agent.mesh_state import MeshState
from encryption import rotation
from encryption.device import DeviceState, PeerState
from encryption.peers import NodeKey, PublicKey
from encryption.rotation import Event, Own, Pair, Phase
from encryption.wireguard import PeerTable
from model.address import Address
from model.node import Node

log = logging.getLogger("isthmus.agent.encryption")

BUSY_S = 0.25
IDLE_S = 5.0
HOLD_S = 2.0  # so long must a step be due: what is on its way arrives meanwhile
QUIET_S = 1.5
QUIET_BYTES = 300  # in that time: keepalives and handshakes, but no connection


class DeviceLostError(OSError):
    """The main device is another one than we made: programs and peers must be set up anew."""


@dataclass(slots=True)
class _Meter:
    """When the bytes of a peer last grew by more than keepalives."""

    received: int
    since_s: float
    loud_s: float

    def look(self, received: int, now_s: float) -> bool:
        """Whether it is quiet."""
        if received - self.received > QUIET_BYTES:
            self.loud_s = now_s
        if received - self.received > QUIET_BYTES or now_s - self.since_s >= QUIET_S:
            self.received, self.since_s = received, now_s
        return now_s - self.loud_s >= QUIET_S


class KeyRotation:
    """One node's part in it."""

    def __init__(
        self,
        node: WireguardNode,
        mesh: MeshState,
        announce: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``announce``: what we say of ourselves has changed. ``clock``: Unix time."""
        self._node, self._mesh, self._announce, self._clock = node, mesh, announce, clock
        self._opened: Opened = node.opened
        self._meters: dict[tuple[str, PublicKey], _Meter] = {}
        self._due: tuple[Event, int] | None = None
        self._due_since_s = 0.0
        self._busy = asyncio.Lock()
        self.main: DeviceState | None = None
        self.detour: DeviceState | None = None
        self.pairs: dict[NodeKey, Pair] = {}
        self.error = ""

    @property
    def own(self) -> Own:
        """Where we are."""
        p = self._opened.progress
        return Own(p.number, p.phase, p.since_s, p.promoted_s)

    def waiting(self) -> list[str]:
        """For whom the next step waits."""
        return rotation.waiting_for(self.own, self.pairs.values(), self._clock())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._busy:
                    await self._look()
                self.error = ""
            except DeviceLostError:
                raise
            except OSError as error:
                if str(error) != self.error:
                    log.warning('event=rotation-failed error="%s"', error)
                self.error = str(error)
            turning = any(s is not None and s.key is not None for s in self._node.said.values())
            active = self.own.phase is not Phase.STEADY or turning
            await asyncio.sleep(BUSY_S if active else IDLE_S)

    async def begin(self) -> int:
        """A person's wish; the number of the rotation. Raises ``ValueError`` while one runs."""
        async with self._busy:
            await self.refresh()
            if busy := rotation.under_way(self.pairs.values(), self._clock()):
                raise ValueError(f"a rotation is under way: {busy}")
            known = [s.number for s in self._node.said.values() if s is not None]
            number = max([self.own.number, *known]) + 1
            await self._act(Event.BEGIN, number)
            return number

    async def abort(self) -> int:
        """Back to the old key, everywhere. Raises ``ValueError`` when there is nothing to abort."""
        async with self._busy:
            await self._act(Event.ABORT, self.own.number)
            return self.own.number

    async def refresh(self) -> None:
        """Read the devices. Raises ``OSError``."""
        now_s = self._clock()
        self.main, self.detour = await self._node.read()
        self.pairs = {name: self._pair(name, now_s) for name in list(self._node.said)}

    async def _look(self) -> None:
        await self.refresh()
        if self.main is not None and self.main.public_key != self._opened.public_key:
            name = self._opened.device.name
            raise DeviceLostError(f"device {name} was made anew by another: starting again with it")
        now_s = self._clock()
        self._steer()
        due = rotation.next_event(
            self.own, self.pairs.values(), now_s, self._opened.progress.begun_s
        )
        if due != self._due:
            self._due, self._due_since_s = due, now_s
        if due is None:
            return
        at_once = due[0] in (Event.BEGIN, Event.ABORT)
        if at_once or now_s - self._due_since_s >= HOLD_S:
            await self._act(*due)

    def _pair(self, name: NodeKey, now_s: float) -> Pair:
        claim, said = self._node.peers.claim(name), self._node.said.get(name)
        main = _peer(self.main, claim.key if claim else None)
        detour = _peer(self.detour, said.key if said else None)
        return Pair(
            "/".join(name),
            said,
            main.handshake_s if main else 0.0,
            detour.handshake_s if detour else 0.0,
            self._quiet("main", claim.key if claim else None, main, now_s),
            self._quiet("detour", said.key if said else None, detour, now_s),
        )

    def _quiet(
        self, device: str, key: PublicKey | None, peer: PeerState | None, now_s: float
    ) -> bool:
        if key is None or peer is None:
            return True
        meter = self._meters.setdefault((device, key), _Meter(peer.received_bytes, now_s, now_s))
        return meter.look(peer.received_bytes, now_s)

    def _steer(self) -> None:
        """Tell the programs which device encrypts for whom."""
        wanted: dict[Address, int] = {}
        for name, pair in self.pairs.items():
            claim = self._node.peers.claim(name)
            if claim is not None and rotation.uses_detour(self.own, pair):
                wanted |= dict.fromkeys(claim.addresses, self._opened.detour_ifindex)
        via = self._node.via
        changed = {a for a in via.keys() | wanted.keys() if via.get(a) != wanted.get(a)}
        via.clear()
        via.update(wanted)
        for address in changed:
            self._node.via_table.mark(address)

    async def _act(self, event: Event, number: int) -> None:
        phase = rotation.after(self.own.phase, event)
        opened, now_s = self._opened, self._clock()
        progress = replace(opened.progress, number=number, phase=phase, since_s=now_s)
        if event is Event.BEGIN:
            opened.files.forget_next()  # of one that never got as far
            progress = replace(progress, begun_s=now_s)
        if event is Event.PROMOTE:
            progress = replace(progress, promoted_s=now_s)
            key = opened.files.promote()
            await opened.set_main_key(key)
            self._node.peers.rekey(opened.public_key)
        opened.files.save(progress)
        opened.progress = progress
        await self._arrange(event)
        log.info("event=rotation number=%d step=%s phase=%s", number, event.value, phase.value)
        self._due, self._meters = None, {}
        self._announce()

    async def _arrange(self, event: Event) -> None:
        """Devices and peers as the phase needs them; repeatable."""
        opened, node = self._opened, self._node
        if event is Event.BEGIN:
            await opened.open_detour()
            assert opened.detour is not None
            await node.attach(opened.detour.name)
            node.detour_target.table = PeerTable(opened.detour, opened.call, rotation.KEEPALIVE_S)
            node.nodes_again()
            # Also for peers to come: a promoted key of another node is shaken hands with at once.
            await node.target.keep_alive(opened.keepalive_s)
        elif event is Event.RETIRE:
            await node.target.keep_alive(opened.keepalive_s)
            node.detour_target.table = None
            await opened.close_detour()
            node.nodes_again()

    def announced(self, node: Node) -> Node:
        """This node, as others need to know it now."""
        return self._opened.announced(node)

    def shape(self) -> dict[str, Any]:
        """For people: where we are, and for whom we wait."""
        own, progress = self.own, self._opened.progress
        return {
            "number": own.number,
            "phase": own.phase.value,
            "since": progress.since_s,
            "waiting-for": self.waiting(),
            "error": self.error,
        }


def _peer(state: DeviceState | None, key: PublicKey | None) -> PeerState | None:
    return state.peers.get(key) if state is not None and key is not None else None
