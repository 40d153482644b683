"""What people and monitors are told of IPsec. Reads values. No secret can be among them."""

from typing import Any

from agent.ipsec import IpsecNode
from encryption.ipsec import Direction
from encryption.ipsec_errors import by_label
from telemetry.metrics import Family, family


def shape(node: IpsecNode) -> dict[str, Any]:
    """``EncryptionStatus`` with IPsec."""
    ring, errors = node.opened.ring, {k: n for k, n in sorted(node.errors.items()) if n}
    return {
        "msg": "; ".join(node.sentences()[:3]),
        "ipsec": {
            "decrypt-interfaces": list(node.interfaces),
            "keys-in-use": len({*ring.key_ids, *node.opened.spared}),
            "key-ids": sorted({*ring.key_ids, *node.opened.spared}),
            "current-key-id": ring.current,
            "max-seq-number": f"{node.last_sequence:#x}/{(1 << 64) - 1:#x}",
            "error-count": sum(errors.values()),
            "xfrm-errors": errors,
            "peers": [
                {
                    "node": "/".join(name),
                    "address": str(peer.end.address),
                    "node-id": peer.node_id,
                    "key-id": peer.key_id,
                    "sends-with": node.sends_with(peer),
                }
                for name, peer in node.named_peers()
            ],
        },
    }


def collect(node: IpsecNode) -> list[Family]:
    """Families of IPsec."""
    opened = node.opened
    out = sum(1 for key in node.wanted_states if key.mark.value & 0x0F00 == 0x0E00)
    policies = [key.direction for key in node.wanted_policies]
    return [
        family(
            "cilium_ipsec_xfrm_error",
            "gauge",
            "Packets that the kernel's IPsec refused, since boot",
            (
                ({"error": error, "type": way}, count)
                for (error, way), count in sorted(by_label(node.errors).items())
            ),
        ),
        family(
            "cilium_ipsec_keys",
            "gauge",
            "Keys in use: one, and two during a rotation",
            (({}, len({*opened.ring.key_ids, *opened.spared})),),
        ),
        family(
            "cilium_ipsec_xfrm_states",
            "gauge",
            "States in the kernel that we want, by direction",
            (
                ({"direction": "in"}, len(node.wanted_states) - out),
                ({"direction": "out"}, out),
            ),
        ),
        family(
            "cilium_ipsec_xfrm_policies",
            "gauge",
            "Policies in the kernel that we want, by direction",
            (
                ({"direction": "in"}, policies.count(Direction.IN)),
                ({"direction": "out"}, policies.count(Direction.OUT)),
            ),
        ),
    ]
