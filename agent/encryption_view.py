"""What people and monitors are told of encryption. Reads values. No secret can be among them."""

import time
from datetime import UTC, datetime
from typing import Any

from agent import ipsec_view
from agent.view import View
from encryption.device import DeviceState, PeerState
from encryption.peers import PublicKey
from encryption.wireguard import Device
from telemetry.metrics import Family, family


def shape(view: View) -> dict[str, Any]:
    """``EncryptionStatus``, and the state of a rotation."""
    if view.ipsec is not None:
        return ipsec_view.shape(view.ipsec)
    node, rotation = view.wireguard, view.rotation
    if node is None or rotation is None:
        return {"mode": "Disabled"}
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
        "mode": "Wireguard",
        "msg": "",
        "strict-mode": config.enable_encryption_strict_mode,
        "wireguard": {
            "interfaces": interfaces,
            "node-encryption": "Enabled" if opened.for_datapath(view.me).nodes else "Disabled",
            "node-encrypt-opt-out-labels": ",".join(config.node_encryption_opt_out_labels),
        },
        "key-age-seconds": int(time.time() - opened.files.key_made_s()),
        "rotation": rotation.shape() | {"by-detour": detoured},
        "problems": node.sentences()[:20],
    }


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
    if view.ipsec is not None:
        return ipsec_view.collect(view.ipsec)
    node, rotation = view.wireguard, view.rotation
    if node is None or rotation is None:
        return []
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
            "isthmus_encryption_problems",
            "gauge",
            "Announcements of nodes that cannot be followed",
            (({}, len(node.sentences())),),
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
