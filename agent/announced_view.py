"""What each other node of the mesh says of its encryption, for people. Reads values."""

from typing import Any

from agent.mesh_state import MeshState
from agent.node import Self
from encryption import migration, rotation
from model.node import Node


def shape(mesh: MeshState, me: Self) -> dict[str, Any]:
    """This node's name, and by node of every cluster, CLUSTER/NODE: what it announces."""
    own = me.node.cluster, me.node.name
    return {
        "node": "/".join(own),
        "announced": {
            f"{node.cluster}/{node.name}": _announced(node)
            for node in mesh.nodes
            if (node.cluster, node.name) != own
        },
    }


def _announced(node: Node) -> dict[str, Any]:
    text = node.annotations.get(rotation.ANNOTATION, "")
    return {
        "wireguard-key": node.wireguard_public_key,
        "ipsec-key": migration.ipsec_key(node),
        "rotation": " ".join(text.split()[:2]),  # number and phase; the key is no news
    }
