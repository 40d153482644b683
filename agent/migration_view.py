"""What this node says for a change of the kind of encryption: with what it sends to each other
node, and which kinds cannot be used with one yet. Reads values; ``encryption.migration`` judges.
"""

import time
from collections.abc import Iterator
from typing import Any

from agent.mesh_encryption import MeshEncryption
from agent.mesh_state import MeshState
from agent.node import Self
from encryption import migration
from encryption.migration import Kind
from model.node import Node


def shape(encryption: MeshEncryption, mesh: MeshState, me: Self) -> dict[str, Any]:
    """By node, CLUSTER/NODE."""
    stance, now_s = encryption.opened.stance, time.time()
    return {
        "sends": stance.sends.value,
        "accepts": stance.accepts.value,
        "nodes": {
            f"{node.cluster}/{node.name}": {
                "sends": migration.sent_with(stance, migration.received_by(node)).value,
                "unready": {kind.value: why for kind, why in _unready(encryption, node, now_s)},
            }
            for node in mesh.nodes
            if (node.cluster, node.name) != (me.node.cluster, me.node.name)
        },
    }


def _unready(encryption: MeshEncryption, node: Node, now_s: float) -> Iterator[tuple[Kind, str]]:
    for kind, look in ((Kind.WIREGUARD, _wireguard), (Kind.IPSEC, _ipsec)):
        why = look(encryption, node, now_s)
        if why:
            yield kind, why


def _wireguard(encryption: MeshEncryption, node: Node, now_s: float) -> str:
    ours, rotation = encryption.wireguard, encryption.rotation
    if ours is None or rotation is None:
        return "this node does not accept it"
    name = (node.cluster, node.name)
    claim, pair = ours.peers.claim(name), rotation.pairs.get(name)
    if claim is None:
        return "it announces no key"
    if ours.peers.owner(claim.key) != name:
        return "its key is another node's, too"
    if pair is None or now_s - pair.main_handshake_s >= migration.PROVEN_S:
        return "no handshake: UDP 51871 must pass between them"
    return ""


def _ipsec(encryption: MeshEncryption, node: Node, now_s: float) -> str:
    del now_s
    ours = encryption.ipsec
    if ours is None:
        return "this node does not accept it"
    if not ours.opened.announced_key:
        return "this node's kernel does not hold its states: see the table ipsec-states"
    return ours.unready((node.cluster, node.name))
