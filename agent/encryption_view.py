"""What people and monitors are told of encryption. Reads values. No secret can be among them."""

import time
from datetime import UTC, datetime
from typing import Any

from agent import ipsec_view
from agent.encryption import WireguardNode, opted_out
from agent.key_rotation import KeyRotation
from agent.view import View
from encryption.device import DeviceState, PeerState
from encryption.migration import Kind
from encryption.peers import PublicKey
from encryption.wireguard import Device
from telemetry.metrics import Family, family

_MODES = {Kind.OFF: "Disabled", Kind.WIREGUARD: "Wireguard", Kind.IPSEC: "IPsec"}


def shape(view: View) -> dict[str, Any]:
    """``EncryptionStatus``, and the state of a rotation."""
    encryption = view.encryption
    found: dict[str, Any] = {"mode": _MODES[encryption.opened.stance.sends], "msg": ""}
    if encryption.opened.stance.kinds:
        found["strict-mode"] = view.config.enable_encryption_strict_mode
    if encryption.ipsec is not None:
        found |= ipsec_view.shape(encryption.ipsec)
    if encryption.wireguard is not None and encryption.rotation is not None:
        found |= _wireguard(view, encryption.wireguard, encryption.rotation)
    found["problems"] = encryption.sentences()[:20]
    return found


def _wireguard(view: View, node: WireguardNode, rotation: KeyRotation) -> dict[str, Any]:
    opened, config = node.opened, view.config
    names = {c.key: "/".join(n) for n in node.said if (c := node.peers.claim(n)) is not None}
    interfaces = [
        _interface(opened.device, opened.ifindex, rotation.main, names, node.first_seen_s)
    ]
    if opened.detour is not None:
        spare = {s.key: "/".join(n) for n, s in node.said.items() if s is not None and s.key}
        interfaces.append(
            _interface(opened.detour, opened.detour_ifindex, rotation.detour, spare, {})
        )
    detoured = sorted(
        names[c.key]
        for n in node.said
        if (c := node.peers.claim(n)) is not None and any(a in node.via for a in c.addresses)
    )
    return {
        "wireguard": {
            "interfaces": interfaces,
            "node-encryption": "Enabled" if _encrypts_itself(view) else "Disabled",
            "node-encrypt-opt-out-labels": ",".join(config.node_encryption_opt_out_labels),
        },
        "key-age-seconds": int(time.time() - opened.files.key_made_s()),
        "rotation": rotation.shape() | {"by-detour": detoured},
    }


def _encrypts_itself(view: View) -> bool:
    return view.config.encrypt_node and not opted_out(view.config, view.me.node)


def _interface(
    device: Device,
    ifindex: int,
    state: DeviceState | None,
    names: dict[PublicKey, str],
    first_seen_s: dict[PublicKey, float],
) -> dict[str, Any]:
    peers = state.peers if state is not None else {}
    return {
        "name": device.name,
        "kind": device.kind,
        "ifindex": ifindex,
        "listen-port": state.port if state is not None else 0,
        "public-key": state.public_key if state is not None else None,
        "peer-count": len(peers),
        "peers": [
            _peer(key, peer, names.get(key, ""), first_seen_s.get(key))
            for key, peer in sorted(peers.items(), key=lambda row: names.get(row[0], ""))
        ],
    }


def _peer(key: PublicKey, peer: PeerState, name: str, first_seen_s: float | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "node": name,
        "public-key": key,
        "endpoint": f"{peer.endpoint}:{peer.port}" if peer.endpoint is not None else "",
        "last-handshake-time": _moment(peer.handshake_s),
        "allowed-ips": sorted(str(prefix) for prefix in peer.allowed),
        "transfer-rx": peer.received_bytes,
        "transfer-tx": peer.sent_bytes,
    }
    if first_seen_s is not None:
        said["key-known-seconds"] = int(time.time() - first_seen_s)
    return said


def _moment(unix_s: float) -> str | None:
    return datetime.fromtimestamp(unix_s, UTC).isoformat() if unix_s else None


def collect(view: View) -> list[Family]:
    """Families of encryption; none while it is off."""
    encryption = view.encryption
    if not encryption.opened.stance.kinds and not encryption.refused:
        return []
    stance = encryption.opened.stance
    found = [
        family(
            "isthmus_encryption_stance",
            "gauge",
            "1: what this node sends with, and what it accepts besides while a mesh changes",
            (({"sends": stance.sends.value, "accepts": stance.accepts.value}, 1),),
        ),
        family(
            "isthmus_encryption_problems",
            "gauge",
            "Announcements and settings that cannot be followed",
            (({}, len(encryption.sentences())),),
        ),
    ]
    if encryption.ipsec is not None:
        found += ipsec_view.collect(encryption.ipsec)
    if encryption.wireguard is not None and encryption.rotation is not None:
        found += _collect_wireguard(encryption.wireguard, encryption.rotation)
    return found


def _collect_wireguard(node: WireguardNode, rotation: KeyRotation) -> list[Family]:
    peers = rotation.main.peers.values() if rotation.main is not None else ()
    detour = rotation.detour.peers.values() if rotation.detour is not None else ()
    now_s = time.time()
    live = sum(1 for pair in rotation.pairs.values() if pair.is_live(now_s))
    return [
        family(
            "isthmus_encryption_peers",
            "gauge",
            "Nodes that we encrypt for; live: shaken hands with in the last three minutes",
            (({"state": "known"}, len(peers)), ({"state": "live"}, live)),
        ),
        family(
            "isthmus_encryption_bytes_total",
            "counter",
            "Bytes in cipher, by direction, since the devices were made",
            (
                ({"direction": "ingress"}, sum(p.received_bytes for p in (*peers, *detour))),
                ({"direction": "egress"}, sum(p.sent_bytes for p in (*peers, *detour))),
            ),
        ),
        family(
            "isthmus_encryption_key_age_seconds",
            "gauge",
            "Age of this node's key",
            (({}, int(now_s - node.opened.files.key_made_s())),),
        ),
        family(
            "isthmus_encryption_rotation",
            "gauge",
            "1: a rotation of keys runs on this node",
            (({"phase": rotation.own.phase.value}, int(rotation.own.phase.value != "steady")),),
        ),
    ]
