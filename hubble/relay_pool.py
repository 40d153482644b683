"""The nodes a relay knows, and a connection to each. Adapter.

Nodes come from the peer service of one node, which is asked again when its stream ends; what was
known is kept meanwhile, and a minute longer if it then cannot be reached. A node that cannot be
reached is tried again after 1 s, then up to 60 s.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.message import DecodeError

from hubble.peers import Peer
from hubble.rpc import RpcError
from hubble.rpc_client import Channel, ClientTls, connect
from hubble.tls_listener import present
from reconcile.tasks import TaskGroup
from wire.hubble import peer_pb2

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 5.0  # of the peer service
PING_S: Final = 15.0  # who has not answered by the next one is gone
UNTOLD_S: Final = 60.0  # for nodes that a peer service does not know (any more)
_BACKOFF_MAX_S: Final = 60.0
_LOOK_S: Final = 1.0
_Kind = peer_pb2.ChangeNotificationType


@dataclass
class Node:
    """A node and how it is reached."""

    name: str
    peer: Peer
    channel: Channel | None = None
    error: str = ""
    backoff_s: float = 1.0
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_connected(self) -> bool:
        """Calls can be made."""
        return self.channel is not None and self.channel.is_open


def _ready(tls: ClientTls) -> ClientTls:
    """With the authorities that are there by now: other clusters' come when they join."""
    return replace(tls, authorities=present(tls.authorities) or tls.authorities)


class Pool:
    """Run ``run`` in a task; ``nodes`` is what is known."""

    def __init__(self, service: str, service_tls: ClientTls | None, tls: ClientTls | None) -> None:
        self.nodes: dict[str, Node] = {}
        self.is_informed = False  # the peer service speaks to us
        self._untold: set[str] = set()  # nodes of which it has not spoken since it is asked
        self._service, self._service_tls, self._tls = service, service_tls, tls

    def connected(self) -> list[Node]:
        """Nodes that can be asked now."""
        return [node for node in self.nodes.values() if node.is_connected]

    async def run(self, retry_s: float = RETRY_S) -> None:
        """Until cancelled."""
        async with TaskGroup() as group:
            while True:
                try:
                    await self._listen(group)
                except (RpcError, DecodeError) as error:
                    log.warning('event=peer-service-lost error="%s"', error)
                self.is_informed = False
                await asyncio.sleep(retry_s)

    async def _listen(self, group: TaskGroup) -> None:
        tls = _ready(self._service_tls) if self._service_tls else None
        channel = await connect(self._service, tls, CONNECT_TIMEOUT_S)
        self._untold = set(self.nodes)
        upkeep = group.create_task(self._keep_service(channel))
        try:
            async with channel.call("/peer.Peer/Notify", b"") as answer:
                while messages := await answer.take():
                    for message in messages:
                        self._told(peer_pb2.ChangeNotification.FromString(message), group)
                    self.is_informed = True
        finally:
            upkeep.cancel()
            channel.close()

    async def _keep_service(self, channel: Channel) -> None:
        """Give it up when it is dead; forget nodes that it knows nothing of."""
        begun_s = time.monotonic()
        while True:
            await asyncio.sleep(PING_S)
            channel.check()
            if time.monotonic() - begun_s >= UNTOLD_S:
                for name in self._untold:
                    node = self.nodes.get(name)
                    if node is not None and not node.is_connected:
                        self._forget(node)
                self._untold = set()

    def _forget(self, node: Node) -> None:
        del self.nodes[node.name]
        if node.task is not None:
            node.task.cancel()

    def _told(self, told: peer_pb2.ChangeNotification, group: TaskGroup) -> None:
        self._untold.discard(told.name)
        known = self.nodes.get(told.name)
        peer = Peer(told.address, told.tls.server_name if told.HasField("tls") else None)
        if known is not None and (told.type == _Kind.PEER_DELETED or known.peer != peer):
            self._forget(known)
            known = None
        if known is None and told.type != _Kind.PEER_DELETED:
            node = self.nodes[told.name] = Node(told.name, peer)
            node.task = group.create_task(self._keep(node))

    async def _keep(self, node: Node) -> None:
        """Connect, and again whenever the connection is lost."""
        try:
            checked_s = time.monotonic()
            while True:
                if not node.is_connected:
                    await self._connect(node)
                elif node.channel is not None and time.monotonic() - checked_s >= PING_S:
                    checked_s = time.monotonic()
                    node.channel.check()
                await asyncio.sleep(_LOOK_S if node.is_connected else node.backoff_s)
        finally:
            if node.channel is not None:
                node.channel.close()

    async def _connect(self, node: Node) -> None:
        name = node.peer.server_name
        if (name is None) != (self._tls is None):
            node.error = "missing TLS ServerName" if name is None else "unexpected TLS ServerName"
            node.backoff_s = _BACKOFF_MAX_S
            return
        tls = None
        if self._tls is not None:
            tls = replace(_ready(self._tls), server_name=name)
        try:
            node.channel = await connect(node.peer.address, tls, CONNECT_TIMEOUT_S)
            node.error, node.backoff_s = "", 1.0
        except RpcError as error:
            node.error = error.message
            node.backoff_s = min(2 * node.backoff_s, _BACKOFF_MAX_S)
