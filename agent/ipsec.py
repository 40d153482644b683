"""IPsec of this node: the key file, peers from the mesh, what the kernel and the programs are told.

Adapter. Opened before the datapath, whose programs must know of it; tied to the mesh and the
kernel's tables by the daemon. The order of a rotation (docs/adr/0168): receive, announce, send.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agent.config import AgentConfig, ConfigError
from agent.ipsec_proof import IpsecProof
from agent.mesh_state import MeshState
from agent.names import both
from agent.node import Self
from agent.routing import is_native
from datapath.encryption_tables import NodeRow
from datapath.kernel_thread import KernelThread
from datapath.runtime import Datapath
from encryption import ipsec, migration
from encryption.ipsec import NodeIds, Peer, Policy, PolicyId, State, StateId
from encryption.ipsec_keys import End, KeyFileError, is_boot_id, parse_secret
from encryption.ipsec_rotation import KeyRing
from encryption.migration import IPSEC_KEY_ANNOTATION, Kind
from encryption.xfrm import Policies, States, error_counters
from mesh.nodes import NodeKey
from model.address import Address
from model.node import CILIUM_INTERNAL_IP, Node
from reconcile.table import Table
from reconcile.tasks import TaskGroup

log = logging.getLogger("isthmus.agent.ipsec")

KEY_FILE_S = 5.0  # between looks at the file


def read_secret(path: Path, ring: KeyRing, now_s: float) -> bool:
    """Take the keys of the file. Returns whether they changed. Raises ``KeyFileError``."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise KeyFileError(f"the IPsec key file {path} cannot be read: {what}") from None
    return ring.load(parse_secret(text), now_s)


@dataclass(slots=True)
class OpenedIpsec:
    """The keys of this node."""

    config: AgentConfig
    ring: KeyRing
    thread: KernelThread
    spared: set[int] = field(default_factory=set)  # keys of a former life that peers may still use
    announced_key: int = 0  # 0: the kernel does not receive with any yet

    def announced(self, node: Node) -> Node:
        """This node with its current key, as others need it."""
        if self.config.stance.sends is Kind.IPSEC:
            return msgspec.structs.replace(node, encryption_key=self.announced_key)
        key = {IPSEC_KEY_ANNOTATION: str(self.announced_key)} if self.announced_key else {}
        return msgspec.structs.replace(node, annotations=node.annotations | key)


async def open_ipsec(config: AgentConfig, me: Self, thread: KernelThread) -> OpenedIpsec | None:
    """The keys of this node; ``None`` when IPsec is off. Raises ``ConfigError``."""
    if Kind.IPSEC not in config.stance.kinds:
        return None
    if not is_boot_id(me.node.boot_id):
        raise ConfigError(f"enable-ipsec: this machine's boot ID is {me.node.boot_id!r}")
    ring = KeyRing(config.ipsec_key_rotation_duration)
    try:
        read_secret(config.ipsec_key_file, ring, time.monotonic())
    except KeyFileError as error:
        raise ConfigError(f"enable-ipsec: {error}") from None
    found = {key.spi for key in await States(thread.call).read()}
    spared = found - set(ring.key_ids)
    # What a former life received with is what it announced; a newer key is announced in its turn.
    known = ring.current if ring.current in found else max(spared, default=0)
    log.info("event=ipsec key=%d keys=%s spared=%s", ring.current, ring.key_ids, sorted(spared))
    return OpenedIpsec(config, ring, thread, spared, known)


@dataclass(slots=True)
class _Rows:
    """What one node needs in each table."""

    states: dict[StateId, State] = field(default_factory=dict)
    policies: dict[PolicyId, Policy] = field(default_factory=dict)
    nodes: dict[Address, NodeRow] = field(default_factory=dict)


class IpsecNode:
    """Peers of this node, kept from the mesh."""

    def __init__(
        self,
        opened: OpenedIpsec,
        mesh: MeshState,
        me: Self,
        datapath: Datapath,
        announce: Callable[[], None],
    ) -> None:
        """``announce``: tell everybody of our current key."""
        self.opened, self._mesh, self._me, self._announce = opened, mesh, me, announce
        self._native = is_native(opened.config)
        self._own = End(me.ip, me.node.boot_id)
        self._datapath = datapath
        self.ids = NodeIds({})
        self._stance = opened.config.stance
        self._peers: dict[NodeKey, Peer] = {}
        self._sent_with: dict[NodeKey, Kind] = {}
        self._proof = IpsecProof(opened.thread.call, self._marks)
        self._has_other_keys = asyncio.Event()
        self._rows: dict[NodeKey, _Rows] = {}
        common = ipsec.desired_policies(me.ip, [], [])
        self._wanted = _Rows(policies=dict(common))
        self.problem: str | None = None
        self.problems: dict[NodeKey, str] = {}
        self.errors: dict[str, int] = {}
        self.last_sequence = 0
        call = opened.thread.call
        clock, draw = time.monotonic, random.random
        self._target = States(call)
        self.states: Table[StateId, State] = Table(
            "ipsec-states",
            self._target,
            self._wanted.states,
            clock=clock,
            draw=draw,
            owned=lambda key, _: key.spi not in self.opened.spared,
        )
        self.policies: Table[PolicyId, Policy] = Table(
            "ipsec-policies",
            Policies(call),
            self._wanted.policies,
            clock=clock,
            draw=draw,
            owned=lambda key, row: not (row.template and row.template.spi in self.opened.spared),
            # The one that blocks comes after the one that lets WireGuard pass.
            order=lambda key: (key != ipsec.WIREGUARD, str(key)),
        )
        self.nodes: Table[Address, NodeRow] = Table(
            "ipsec-nodes", datapath.nodes, self._wanted.nodes, clock=clock, draw=draw
        )
        mesh.nodes.on_node = both(mesh.nodes.on_node, self.node_changed)

    def tables(self) -> tuple[Table[Any, Any], ...]:
        """In the order in which they are written: receivers before senders."""
        return self.states, self.policies, self.nodes

    def _marks(self) -> dict[Address, int]:
        """Of packets to every node that can decrypt what we send."""
        ring, found = self.opened.ring, {}
        for name, peer in self._peers.items():
            key_id = ipsec.sending_key(ring.current, peer, ring.key_ids)
            asked = self._asked(name)
            if key_id and asked is not None and self.opened.announced_key:
                found[asked] = ipsec.mark_out(key_id, peer.node_id).value
        return found

    def _asked(self, name: NodeKey) -> Address | None:
        """An address of a node to which what we send would be encrypted."""
        node = self._mesh.nodes.get(*name)
        if node is None:
            return None
        # Without a tunnel only what is behind a node is encrypted for it: its router is.
        return node.address(CILIUM_INTERNAL_IP) if self._native else node.tunnel_endpoint()

    async def take_over(self) -> None:
        """Node IDs of a former life: a packet that is marked must find the same node."""
        rows = await self._datapath.nodes.read()
        self.ids = NodeIds({address: row.node_id for address, row in rows.items()})

    @property
    def peers(self) -> Collection[Peer]:
        """All nodes that encrypt, or might."""
        return self._peers.values()

    @property
    def announced(self) -> set[int]:
        """Keys that somebody has as the current one."""
        return {peer.key_id for peer in self.peers} | {self.opened.announced_key}

    def node_changed(self, name: NodeKey) -> None:
        """A node of any cluster has come, changed or gone."""
        if name == (self._me.node.cluster, self._me.node.name):
            return
        node = self._mesh.nodes.get(*name)
        before = self._peers.pop(name, None)
        self.problems.pop(name, None)
        address = node.tunnel_endpoint() if node is not None else None
        if node is not None and address is not None:
            self._peers[name] = self._peer(name, node, address)
        elif before is not None and self._owner_of(before.end.address) is None:
            self.ids.forget(before.end.address)
        self._apply(name)

    def _peer(self, name: NodeKey, node: Node, address: Address) -> Peer:
        key_id, received = migration.ipsec_key(node), migration.received_by(node)
        if key_id and not is_boot_id(node.boot_id):
            self.problems[name] = f"node {'/'.join(name)} announces IPsec and no boot ID"
            key_id = 0
        elif node.encryption_key not in range(16) and not received & self._stance.kinds:
            self.problems[name] = (
                f"node {'/'.join(name)} announces key {node.encryption_key}, which is none of "
                "IPsec: all clusters of a mesh must encrypt alike"
            )
        self._sent_with[name] = migration.sent_with(self._stance, received)
        behind = tuple(p for p in node.pod_cidrs if p.version == 4 and self._native)
        return Peer(End(address, node.boot_id), self.ids.of(address), key_id, behind)

    def _owner_of(self, address: Address) -> NodeKey | None:
        return next((n for n, peer in self._peers.items() if peer.end.address == address), None)

    def again(self) -> None:
        """Keys have come or gone: every node is looked at anew."""
        for name in list(self._peers):
            self._apply(name)

    def _apply(self, name: NodeKey) -> None:
        wanted = self._rows_of(name)
        old = self._rows.pop(name, _Rows())
        if name in self._peers:
            self._rows[name] = wanted
        _exchange(self.states, self._wanted.states, old.states, wanted.states)
        _exchange(self.policies, self._wanted.policies, old.policies, wanted.policies)
        _exchange(self.nodes, self._wanted.nodes, old.nodes, wanted.nodes)

    def _rows_of(self, name: NodeKey) -> _Rows:
        peer = self._peers.get(name)
        if peer is None:
            return _Rows()
        ring = self.opened.ring
        usable = (*ring.key_ids, *self.opened.spared)
        common = ipsec.desired_policies(self._own.address, [], [])
        policies = ipsec.desired_policies(self._own.address, [peer], ring.key_ids)
        sends = self._sent_with[name] is Kind.IPSEC
        key_id = ipsec.sending_key(ring.current, peer, usable) if sends else 0
        return _Rows(
            ipsec.desired_states(self._own, [peer], ring.keys),
            {key: row for key, row in policies.items() if key not in common},
            {peer.end.address: NodeRow(peer.node_id, key_id)},
        )

    async def run(self, period_s: float = KEY_FILE_S) -> None:
        """Look at the key file, announce what is received with, and retire what nobody uses."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._announce_received(), name="ipsec-announce")
            if self._stance.accepts is Kind.IPSEC:
                tasks.create_task(self._proof.run(), name="ipsec-proof")
            await self._keep(period_s)

    async def _keep(self, period_s: float) -> None:
        while True:
            if self.opened.config.enable_ipsec_key_watcher:
                await self._look()
            self._retire()
            await self._measure()
            await asyncio.sleep(period_s)

    async def _look(self) -> None:
        ring, path = self.opened.ring, self.opened.config.ipsec_key_file
        before = ring.overhead_bytes
        try:
            changed = await asyncio.to_thread(read_secret, path, ring, time.monotonic())
        except KeyFileError as error:
            if self.problem != str(error):
                log.error('event=ipsec-key-file error="%s"', error)
            self.problem = str(error)
            return
        self.problem = None
        if not changed:
            return
        if ring.overhead_bytes > before:
            self.problem = (
                f"key {ring.current} takes {ring.overhead_bytes - before} bytes more of a packet "
                "than pods leave, large ones are fragmented: restart this agent"
            )
        log.info("event=ipsec-keys current=%d keys=%s", ring.current, ring.key_ids)
        self.again()
        self._has_other_keys.set()

    async def _announce_received(self) -> None:
        """Announce the current key once the kernel receives with it: a row that cannot be written
        holds up the announcement and nothing else.
        """
        while True:
            self._has_other_keys.clear()
            current = self.opened.ring.current
            for table in (self.states, self.policies):
                await table.written(table.revision)
            if self.opened.announced_key != current:
                self.opened.announced_key = current
                self._announce()
            await self._has_other_keys.wait()

    def _retire(self) -> None:
        ring, announced = self.opened.ring, self.announced
        gone = ring.retire(announced, time.monotonic())
        unused = self.opened.spared - announced
        if gone or unused:
            self.opened.spared -= unused
            log.info("event=ipsec-keys-retired keys=%s", sorted({*gone, *unused}))
            self.again()
            for table in (self.states, self.policies):
                table.mark_all()

    async def _measure(self) -> None:
        try:
            self.errors = await error_counters(self.opened.thread.call)
            self.last_sequence = await self._target.last_sequence()
        except OSError as error:
            log.warning('event=ipsec-counters-failed error="%s"', error)

    def named_peers(self) -> list[tuple[NodeKey, Peer]]:
        """Peers by cluster and name."""
        return sorted(self._peers.items())

    def sends_with(self, peer: Peer) -> int:
        """The key with which the programs send to a peer; 0: in clear text."""
        row = self.nodes.actual(peer.end.address)
        return row.key_id if row is not None else 0

    @property
    def wanted_states(self) -> Collection[StateId]:
        """What the kernel should have."""
        return self._wanted.states.keys()

    @property
    def wanted_policies(self) -> Collection[PolicyId]:
        """What the kernel should have."""
        return self._wanted.policies.keys()

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Devices on which what comes in is marked for decryption."""
        return self._datapath.underlays

    def unready(self, name: NodeKey) -> str:
        """Why a node cannot be spoken with yet; empty: it can."""
        peer = self._peers.get(name)
        if peer is None or not peer.key_id:
            return self.problems.get(name, "it announces no key")
        key_id = ipsec.sending_key(self.opened.ring.current, peer, self.opened.ring.key_ids)
        if not key_id:
            return f"it announces key {peer.key_id}: write the same secret in every cluster"
        for table in (self.states, self.policies):
            if table.status.failing:
                return f"{table.status.failing} rows of the table {table.name} fail"
        asked = self._asked(name)
        if asked is None or not self._proof.is_proven(asked):
            return "no answer to what is encrypted for it: IP protocol 50 must pass between them"
        return ""

    def sentences(self) -> list[str]:
        """What is wrong with the key file and with what nodes announce."""
        return [*([self.problem] if self.problem else []), *self.problems.values()]


def _exchange(
    table: Table[Any, Any], wanted: dict[Any, Any], old: dict[Any, Any], new: dict[Any, Any]
) -> None:
    """Take the rows of one node out of the wanted ones, and put its new ones in."""
    for key in old.keys() - new.keys():
        wanted.pop(key, None)
        table.mark(key)
    for key, row in new.items():
        if wanted.get(key) != row:
            wanted[key] = row
            table.mark(key)
