"""WireGuard of the kernel, by netlink. Adapter; blocking."""

import base64
import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from encryption import links
from encryption.device import DeviceState, PeerChange, PeerState
from encryption.peers import PublicKey
from encryption.wireguard_keys import PrivateKey
from model.address import parse_address, parse_prefix

_ABSENT = frozenset({errno.EOPNOTSUPP, errno.ENOENT})


class KernelDevice:
    """A device of kind ``wireguard``."""

    kind = "kernel"

    def __init__(self, name: str) -> None:
        self.name = name

    def ensure(self, mtu: int) -> int:
        """Raises ``OSError`` with EOPNOTSUPP where the kernel has no WireGuard."""
        found = links.find(self.name)
        if found is None:
            links.create(self.name, "wireguard")
        elif links.kind(found) != "wireguard":
            raise FileExistsError(
                errno.EEXIST, f"device {self.name} is no WireGuard device: remove or rename it"
            )
        return links.adjust(self.name, mtu)

    def configure(self, key: PrivateKey, port: int, mark: int) -> None:
        """Set the device's own half."""
        secret = base64.b64encode(key.reveal()).decode()
        with _kernel() as wg, links.doing(f"configure device {self.name} on UDP port {port}"):
            wg.set(self.name, private_key=secret, listen_port=port, fwmark=mark)

    def read(self) -> DeviceState:
        """All of it; a device with many peers answers in several messages."""
        public: PublicKey | None = None
        port = mark = 0
        peers: dict[PublicKey, PeerState] = {}
        with _kernel() as wg, links.doing(f"read device {self.name}"):
            for message in wg.info(self.name):
                if message.get_attr("WGDEVICE_A_PUBLIC_KEY"):
                    public = _text(message.get_attr("WGDEVICE_A_PUBLIC_KEY"))
                port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or port
                mark = message.get_attr("WGDEVICE_A_FWMARK") or mark
                for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                    key = _text(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
                    peers[key] = _joined(peers.get(key), _peer(peer))
        return DeviceState(public, port, mark, peers)

    def change(self, changes: Sequence[PeerChange]) -> Mapping[PublicKey, OSError]:
        """One message for each."""
        from pyroute2.netlink.exceptions import NetlinkError

        errors: dict[PublicKey, OSError] = {}
        with _kernel() as wg:
            for change in changes:
                try:
                    wg.set(self.name, peer=_arguments(change))
                except NetlinkError as error:
                    code = error.code or errno.EIO
                    text = f"peer {change.key} of {self.name}: {os.strerror(code)}"
                    errors[change.key] = OSError(code, text)
        return errors

    def remove(self) -> None:
        """With all peers."""
        links.delete(self.name)


def _kernel() -> Any:
    from pyroute2 import WireGuard  # not before it is needed: encryption.links

    return WireGuard()


def is_absent(error: OSError) -> bool:
    """Whether an error says that this kernel has no WireGuard."""
    return error.errno in _ABSENT


def _text(key: bytes | str) -> PublicKey:
    return PublicKey(key.decode() if isinstance(key, bytes) else key)


def _peer(peer: Any) -> PeerState:
    endpoint, handshake = (
        peer.get_attr("WGPEER_A_ENDPOINT"),
        peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME"),
    )
    return PeerState(
        parse_address(endpoint["addr"]) if endpoint else None,
        int(endpoint["port"]) if endpoint else 0,
        frozenset(parse_prefix(a["addr"]) for a in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()),
        handshake["tv_sec"] + handshake["tv_nsec"] / 1e9 if handshake else 0.0,
        peer.get_attr("WGPEER_A_RX_BYTES") or 0,
        peer.get_attr("WGPEER_A_TX_BYTES") or 0,
    )


def _joined(first: PeerState | None, second: PeerState) -> PeerState:
    """A peer with many prefixes is told in parts; only the first has the rest."""
    if first is None:
        return second
    return PeerState(
        first.endpoint,
        first.port,
        first.allowed | second.allowed,
        first.handshake_s,
        first.received_bytes,
        first.sent_bytes,
    )


def _arguments(change: PeerChange) -> dict[str, Any]:
    found: dict[str, Any] = {"public_key": change.key}
    if change.remove:
        return found | {"remove": True}
    if change.endpoint is not None:
        found |= {"endpoint_addr": str(change.endpoint), "endpoint_port": change.port}
    if change.keepalive_s is not None:
        found["persistent_keepalive"] = change.keepalive_s
    if change.add:
        found["allowed_ips"] = [str(prefix) for prefix in change.add]
    return found
