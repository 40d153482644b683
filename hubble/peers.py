"""The nodes that can be asked, and who wants to hear of changes. Pure.

A subscriber is told the difference between the table and what it was told last, so nothing queues
up for one who is slow. Names are ``<cluster>/<node>``, for the cluster ``default`` the node alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from wire.hubble import peer_pb2


class Peer(NamedTuple):
    """How to reach the observer of a node."""

    address: str  # host:port
    server_name: str | None = None  # of its certificate; none: it speaks without TLS


def peer_name(cluster: str, node: str) -> str:
    """A node's name as a peer."""
    return node if cluster in ("", "default") else f"{cluster}/{node}"


def tls_server_name(cluster: str, node: str) -> str:
    """The name in the certificate of a node's observer."""
    label, domain = node.replace(".", "-"), (cluster or "default").replace(".", "-")
    return f"{label}.{domain}.hubble-grpc.cilium.io"


def changes(
    known: Mapping[str, Peer], now: Mapping[str, Peer]
) -> Iterable[peer_pb2.ChangeNotification]:
    """What to tell one who knows ``known``: who is gone, new, or elsewhere."""
    for name in known.keys() - now.keys():
        yield _notification(name, known[name], peer_pb2.ChangeNotificationType.PEER_DELETED)
    for name, peer in now.items():
        before = known.get(name)
        if before is None:
            yield _notification(name, peer, peer_pb2.ChangeNotificationType.PEER_ADDED)
        elif before != peer:
            yield _notification(name, peer, peer_pb2.ChangeNotificationType.PEER_UPDATED)


def _notification(
    name: str, peer: Peer, kind: peer_pb2.ChangeNotificationType
) -> peer_pb2.ChangeNotification:
    told = peer_pb2.ChangeNotification(name=name, address=peer.address, type=kind)
    if peer.server_name is not None:
        told.tls.server_name = peer.server_name
    return told


class PeerTable:
    """The nodes of the moment; the agent's names replace it."""

    def __init__(self) -> None:
        self.peers: Mapping[str, Peer] = {}
        self._watchers: dict[object, Callable[[], None]] = {}

    def replace(self, peers: Mapping[str, Peer]) -> None:
        """These are the nodes now."""
        if dict(peers) == dict(self.peers):
            return
        self.peers = dict(peers)
        for wake in tuple(self._watchers.values()):
            wake()

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called after each change, until the returned function is called."""
        key = object()
        self._watchers[key] = wake
        return lambda: self._watchers.pop(key, None) and None
