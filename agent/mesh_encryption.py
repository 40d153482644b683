"""Encryption of this node as a whole: both kinds, opened before the datapath, tied to it after.

Which kinds there are is the node's stance (``encryption.migration``). Adapter; wiring only. What is
decided lives in ``agent.encryption`` (WireGuard) and ``agent.ipsec``.
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent.config import AgentConfig
from agent.encryption import (
    ENCRYPTION_KEY,
    Opened,
    WireguardNode,
    open_wireguard,
    opted_out,
    remove_wireguard,
    strict_prefixes,
)
from agent.ipsec import IpsecNode, OpenedIpsec, open_ipsec
from agent.key_rotation import KeyRotation
from agent.mesh_state import MeshState
from agent.node import Self
from datapath.kernel_thread import KernelThread
from datapath.runtime import Datapath, Encryption
from encryption import ipsec
from encryption.device import OVERHEAD_BYTES
from encryption.migration import Kind, Stance
from encryption.xfrm import Policies, States
from kvstore.remotes import Remotes
from model.address import Prefix
from model.kernel_numbers import DEVICE_WIREGUARD, DEVICE_WIREGUARD_DETOUR
from model.node import Node
from reconcile.table import Table
from reconcile.tasks import TaskGroup

log = logging.getLogger("isthmus.agent.encryption")


@dataclass(slots=True)
class OpenedEncryption:
    """What this node can decrypt with, and what it says of it."""

    config: AgentConfig
    thread: KernelThread
    wireguard: Opened | None
    ipsec: OpenedIpsec | None

    @property
    def stance(self) -> Stance:
        """What the settings ask for."""
        return self.config.stance

    def announced(self, node: Node) -> Node:
        """This node with its keys, as others need it."""
        for opened in (self.wireguard, self.ipsec):
            if opened is not None:
                node = opened.announced(node)
        return node

    def endpoint_key(self, node: Node) -> int:
        """What the objects of our pods say: theirs is encrypted where the node's own is not."""
        return ENCRYPTION_KEY if self.stance.sends is Kind.WIREGUARD else node.encryption_key

    def for_datapath(self, me: Self) -> Encryption | None:
        """What the programs must know; ``None``: nothing is encrypted here."""
        config, stance = self.config, self.stance
        if not stance.kinds:
            return None
        sends = stance.sends is not Kind.OFF
        wireguard, ring = self.wireguard, self.ipsec.ring if self.ipsec else None
        return Encryption(
            wireguard.ifindex if wireguard and sends else 0,
            max(OVERHEAD_BYTES if wireguard else 0, ring.overhead_bytes if ring else 0),
            ipsec=ring is not None and sends,
            hears_ipsec=ring is not None,
            names=wireguard.names if wireguard else (),
            nodes=config.encrypt_node and not opted_out(config, me.node),
            strict=config.enable_encryption_strict_mode,
            strict_nodes=config.encryption_strict_mode_allow_remote_node_identities,
        )


async def open_encryption(config: AgentConfig, me: Self, thread: KernelThread) -> OpenedEncryption:
    """Devices and keys of this node. Raises ``OSError`` and ``ConfigError``."""
    wireguard = await open_wireguard(config, me, thread)
    return OpenedEncryption(config, thread, wireguard, await open_ipsec(config, me, thread))


class MeshEncryption:
    """Peers of this node by each kind that it has."""

    def __init__(
        self,
        opened: OpenedEncryption,
        mesh: MeshState,
        me: Self,
        datapath: Datapath,
        announce: Callable[[], None],
    ) -> None:
        """``announce``: what we say of ourselves has changed."""
        self.opened, self._datapath = opened, datapath
        self.wireguard: WireguardNode | None = None
        self.rotation: KeyRotation | None = None
        self.ipsec: IpsecNode | None = None
        self.tables: tuple[Table[Any, Any], ...] = ()
        self.mtu = datapath.devices.device_mtu - OVERHEAD_BYTES  # of a device that encrypts
        self.refused = ""  # why the present settings are not those we run with
        if opened.wireguard is not None:
            self.wireguard = WireguardNode(opened.wireguard, mesh, me, datapath)
            self.rotation = KeyRotation(self.wireguard, mesh, announce)
            self.tables += self.wireguard.tables()
        if opened.ipsec is not None:
            self.ipsec = IpsecNode(opened.ipsec, mesh, me, datapath, announce)
            self.tables += self.ipsec.tables()
        strict: Table[Prefix, bool] = Table(
            "strict",
            datapath.strict,
            strict_prefixes(opened.config),
            clock=time.monotonic,
            draw=random.random,
        )
        if self.tables:
            self.tables += (strict,)

    def sentences(self) -> list[str]:
        """What is wrong: with settings, with keys, with what nodes announce."""
        found = [self.refused] if self.refused else []
        for node in (self.wireguard, self.ipsec):
            found += node.sentences() if node is not None else []
        return found

    def prefixes_changed(self, prefixes: Sequence[Prefix]) -> None:
        """The ipcache's rows of these may differ now."""
        if self.wireguard is not None:
            self.wireguard.prefixes_changed(prefixes)

    async def take_over(self) -> None:
        """What a former life left: taken on, or out of the kernel when its kind is off now."""
        opened, call = self.opened, self.opened.thread.call
        if self.ipsec is not None:
            await self.ipsec.take_over()
        else:
            await remove_ipsec(call, self._datapath)
        if self.wireguard is not None:
            await self.wireguard.take_over()
        else:
            wanted = opened.config.state_dir / "wireguard"
            await remove_wireguard(call, wanted, DEVICE_WIREGUARD, DEVICE_WIREGUARD_DETOUR)

    def start(
        self, tasks: TaskGroup, remotes: Remotes, heard: Callable[[], Awaitable[object]]
    ) -> None:
        """Run what lives. ``heard``: waits until some cluster has told something whole, or left."""
        if self.rotation is not None:
            tasks.create_task(self.rotation.run(), name="rotation")
        if self.ipsec is not None:
            tasks.create_task(self.ipsec.run(), name="ipsec")
        if self.tables:
            tasks.create_task(self._prune(remotes, heard), name="prune-encryption")

    async def _prune(self, remotes: Remotes, heard: Callable[[], Awaitable[object]]) -> None:
        """A peer goes only when every cluster has said what it has: packets would have no key."""
        await remotes.configured.wait()
        while not all(status.ready for status in remotes.statuses.values()):
            await heard()
        for table in self.tables:
            table.allow_prune()


async def remove_ipsec(call: Callable[..., Any], datapath: Datapath) -> None:
    """States, policies and rows of ours; a kernel without IPsec has none."""
    with suppress(OSError):
        policies, states = Policies(call), States(call)
        found = await policies.read()
        # First what blocks: nothing is marked any more, and WireGuard's own packets must pass.
        await policies.delete(sorted(found, key=lambda key: key != ipsec.BLOCKED))
        await states.delete(list(await states.read()))
        await datapath.nodes.delete(list(await datapath.nodes.read()))
        if found:
            log.info("event=ipsec-removed policies=%d", len(found))
