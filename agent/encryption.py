"""WireGuard of this node: devices, peers from the mesh, what the programs are told. Adapter.

Opened before the datapath, whose programs must know the device; tied to the mesh and the kernel's
tables by the daemon. The rotation of keys lives in ``agent.key_rotation``.
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agent.config import AgentConfig
from agent.mesh_state import MeshState
from agent.names import both
from agent.node import Self
from agent.wireguard_state import Progress, StateFiles
from datapath.kernel_thread import KernelThread
from datapath.runtime import Datapath
from encryption import links, rotation
from encryption.choose import open_device, remove_device
from encryption.device import MARK, OVERHEAD_BYTES, DeviceState
from encryption.migration import Kind
from encryption.peers import NodeKey, Peer, Peers, PublicKey
from encryption.rotation import DETOUR_PORT, Phase
from encryption.wireguard import Device, PeerTable
from encryption.wireguard_keys import PrivateKey
from model.address import Address, Prefix, parse_prefix
from model.kernel_numbers import DEVICE_WIREGUARD, DEVICE_WIREGUARD_DETOUR, WIREGUARD_PORT
from model.node import Node
from reconcile.table import Table

log = logging.getLogger("isthmus.agent.encryption")

ENCRYPTION_KEY = 255  # of nodes and endpoints that WireGuard encrypts for


def strict_prefixes(config: AgentConfig) -> dict[Prefix, bool]:
    """Prefixes of which nothing leaves in clear text, as rows."""
    texts = config.encryption_strict_mode_cidr if config.enable_encryption_strict_mode else ()
    return {parse_prefix(text): True for text in texts}


def opted_out(config: AgentConfig, node: Node) -> bool:
    """Whether a node's own traffic stays in clear text."""
    for text in config.node_encryption_opt_out_labels:
        name, separator, value = text.partition("=")
        if name in node.labels and (not separator or node.labels[name] == value):
            return True
    return False


@dataclass(slots=True)
class DetourTable:
    """The peers of the second device: a ``Target`` that is empty while there is none."""

    table: PeerTable | None = None

    async def read(self) -> Mapping[PublicKey, Peer]:
        """All peers."""
        return await self.table.read() if self.table else {}

    async def upsert(self, rows: Sequence[tuple[PublicKey, Peer]]) -> Mapping[PublicKey, OSError]:
        """As of ``PeerTable``."""
        return await self.table.upsert(rows) if self.table else {}

    async def delete(self, keys: Collection[PublicKey]) -> Mapping[PublicKey, OSError]:
        """As of ``PeerTable``."""
        return await self.table.delete(keys) if self.table else {}


@dataclass(slots=True)
class Opened:
    """The main device with its key, and the detour while there is one."""

    config: AgentConfig
    files: StateFiles
    thread: KernelThread
    mtu: int
    device: Device
    ifindex: int
    public_key: PublicKey
    progress: Progress
    detour: Device | None = None
    detour_ifindex: int = 0
    detour_key: PublicKey | None = None
    call: Callable[..., Awaitable[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.call = self.thread.call

    @property
    def announcement(self) -> rotation.Announcement:
        """What others are told of the rotation."""
        key = self.detour_key if self.progress.phase is not Phase.STEADY else None
        return rotation.Announcement(self.progress.number, self.progress.phase, key)

    def announced(self, node: Node) -> Node:
        """This node with its keys, as others need it."""
        key = 0 if self.config.encrypt_node and opted_out(self.config, node) else ENCRYPTION_KEY
        if self.config.stance.sends is not Kind.WIREGUARD:
            key = node.encryption_key
        return msgspec.structs.replace(
            node,
            wireguard_public_key=self.public_key,
            encryption_key=key,
            annotations={rotation.ANNOTATION: self.announcement.text()},
        )

    @property
    def keepalive_s(self) -> int:
        """How often peers hear from us at least; 0: only when needed.

        Where a handshake must prove a peer, no traffic brings it about: while keys change, and on a
        device that only accepts.
        """
        turning = self.progress.phase is not Phase.STEADY
        if turning or self.config.encryption_accepts is Kind.WIREGUARD:
            return rotation.KEEPALIVE_S
        return int(self.config.wireguard_persistent_keepalive)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the devices that there are."""
        return (self.device.name, *((self.detour.name,) if self.detour else ()))

    async def set_main_key(self, key: PrivateKey) -> None:
        """Onto the main device; what peers send under the earlier one is still understood."""
        await self.call(self.device.configure, key, WIREGUARD_PORT, MARK)
        self.public_key = key.public()

    async def open_detour(self) -> None:
        """Bring up the second device with the key of the rotation."""
        key = self.files.next_key()
        device, ifindex = await self.call(
            open_device, DEVICE_WIREGUARD_DETOUR, self.mtu, self._wanted
        )
        await self.call(device.configure, key, DETOUR_PORT, MARK)
        self.detour, self.detour_ifindex, self.detour_key = device, ifindex, key.public()

    async def close_detour(self) -> None:
        """Take it down, with its key."""
        if self.detour is not None:
            await self.call(self.detour.remove)
        self.detour, self.detour_ifindex, self.detour_key = None, 0, None
        self.files.forget_next()

    @property
    def _wanted(self) -> Any:
        return self.config.state_dir / "wireguard"


async def open_wireguard(config: AgentConfig, me: Self, thread: KernelThread) -> Opened | None:
    """Devices and key of this node; ``None``: WireGuard is off. Raises ``OSError``."""
    if Kind.WIREGUARD not in config.stance.kinds:
        return None
    files = StateFiles(config.state_dir / "state")
    underlay = config.devices.split(",")[0] or None
    device_mtu = config.mtu or await thread.call(links.mtu_of, me.ip, underlay)
    mtu = device_mtu - OVERHEAD_BYTES
    wanted = config.state_dir / "wireguard"
    device, ifindex = await thread.call(open_device, DEVICE_WIREGUARD, mtu, wanted)
    key, progress = files.key(), files.load()
    opened = Opened(config, files, thread, mtu, device, ifindex, key.public(), progress)
    await opened.set_main_key(key)
    if progress.phase is not Phase.STEADY:
        await opened.open_detour()
    else:  # a former life may have ended before it took its own down
        await remove_wireguard(thread.call, wanted, DEVICE_WIREGUARD_DETOUR)
        files.forget_next()
    log.info(
        "event=wireguard device=%s kind=%s mtu=%d public_key=%s phase=%s",
        *(device.name, device.kind, mtu, opened.public_key, progress.phase.value),
    )
    return opened


async def remove_wireguard(call: Callable[..., Awaitable[Any]], wanted: Path, *names: str) -> None:
    """Devices of ours that are not needed any more. Raises ``OSError``."""
    for name in names:
        if await call(remove_device, name, wanted):
            log.info("event=wireguard-removed device=%s", name)


class WireguardNode:
    """Peers of this node, kept from the mesh."""

    def __init__(self, opened: Opened, mesh: MeshState, me: Self, datapath: Datapath) -> None:
        self.opened, self._mesh, self._me = opened, mesh, me
        clock, draw = time.monotonic, random.random
        self.peers = Peers(mesh.own, opened.public_key, lambda key: self.table.mark(key))
        self.detour_peers = Peers(
            *(mesh.own, opened.public_key, lambda key: self.detour_table.mark(key), DETOUR_PORT)
        )
        self.target = PeerTable(opened.device, opened.call, opened.keepalive_s)
        self.detour_target = DetourTable()
        if opened.detour is not None:
            self.detour_target.table = PeerTable(opened.detour, opened.call, rotation.KEEPALIVE_S)
        self.table: Table[PublicKey, Peer] = Table(
            "wireguard", self.target, self.peers, clock=clock, draw=draw
        )
        self.detour_table: Table[PublicKey, Peer] = Table(
            "wireguard-detour", self.detour_target, self.detour_peers, clock=clock, draw=draw
        )
        self.via: dict[Address, int] = {}
        self.via_table: Table[Address, int] = Table(
            "encrypt-via", datapath.encrypt_via, self.via, clock=clock, draw=draw
        )
        self.said: dict[NodeKey, rotation.Announcement | None] = {}
        self.first_seen_s: dict[PublicKey, float] = {}  # Unix time
        self.problems: dict[NodeKey, str] = {}
        self.attach = datapath.attach_wireguard  # a device that comes while we run
        mesh.nodes.on_node = both(mesh.nodes.on_node, self.node_changed)

    async def take_over(self) -> None:
        """Peers that a former life left hear from us as often as they should now."""
        await self.target.keep_alive(self.opened.keepalive_s)

    def tables(self) -> tuple[Table[Any, Any], ...]:
        """In the order in which they are written: receivers before senders."""
        return self.table, self.detour_table, self.via_table

    def node_changed(self, name: NodeKey) -> None:
        """A node of any cluster has come, changed or gone."""
        if name == (self._me.node.cluster, self._me.node.name):
            return
        node = self._mesh.nodes.get(*name)
        if node is None:
            self.said.pop(name, None)
            self.problems.pop(name, None)
            self.peers.drop(*name)
            self.detour_peers.drop(*name)
            return
        text = node.annotations.get(rotation.ANNOTATION)
        try:
            said = rotation.parse(text) if text else None
            self.problems.pop(name, None)
        except ValueError as error:
            said = None
            self.problems[name] = f"node {'/'.join(name)}: {error}"
        self.said[name] = said
        self.peers.put(node)
        if node.wireguard_public_key:
            key = PublicKey(node.wireguard_public_key)
            self.first_seen_s.setdefault(key, time.time())
        detour = said.key if said and said.key and self.opened.detour is not None else ""
        self.detour_peers.put(msgspec.structs.replace(node, wireguard_public_key=detour))

    def nodes_again(self) -> None:
        """The detour has come or gone: every node is looked at anew."""
        for node in list(self._mesh.nodes):
            self.node_changed((node.cluster, node.name))

    def prefixes_changed(self, prefixes: Sequence[Prefix]) -> None:
        """The ipcache's rows of prefixes may differ now."""
        for prefix in prefixes:
            entry = self._mesh.ipcache.get(prefix)
            host = entry.tunnel_endpoint if entry is not None else None
            self.peers.set_prefix(prefix, host)
            self.detour_peers.set_prefix(prefix, host)

    async def read(self) -> tuple[DeviceState, DeviceState | None]:
        """Both devices as they are."""
        opened = self.opened
        main = await opened.call(opened.device.read)
        return main, await opened.call(opened.detour.read) if opened.detour else None

    def sentences(self) -> list[str]:
        """What is wrong with what nodes announce."""
        return [*self.peers.problems(), *self.problems.values()]
