"""Nodes of the stage that encrypt by the kernel's IPsec: what the agent would program for them."""

from collections.abc import Sequence

from datapath.encryption_tables import NodeRow
from datapath.runtime import Encryption
from encryption import ipsec
from encryption.ipsec import Peer
from encryption.ipsec_keys import End, MeshKey
from encryption.xfrm import Policies, States
from model.address import Prefix
from tests.support.nodes import Node, Stage


def _end(node: Node) -> End:
    return End(node.config.node_ip, f"{int(node.config.node_ip):036d}")


def _behind(node: Node) -> tuple[Prefix, ...]:
    return node.config.pod_cidrs if node.config.native else ()


async def receive(stage: Stage, keys: Sequence[MeshKey]) -> None:
    """States and policies for every pair, in these keys and no others."""
    for node in stage.nodes:
        peers = [
            Peer(_end(other), _id(node, other), 1, _behind(other))
            for other in stage.nodes
            if other != node
        ]
        states, policies = States(node.thread.call), Policies(node.thread.call)
        wanted = ipsec.desired_states(_end(node), peers, keys)
        wanted_policies = ipsec.desired_policies(
            node.config.node_ip, peers, [key.id for key in keys]
        )
        known = await states.read()
        changed = [row for row in wanted.items() if known.get(row[0]) != row[1]]
        assert await states.upsert(changed) == {}
        assert await policies.upsert(list(wanted_policies.items())) == {}
        assert await policies.delete((await policies.read()).keys() - wanted_policies) == {}
        assert await states.delete((await states.read()).keys() - wanted) == {}


async def send(node: Node, key_id: int) -> None:
    """What goes into the tunnel at this node is encrypted with this key."""
    rows = [
        (other.config.node_ip, NodeRow(_id(node, other), key_id))
        for other in node.stage.nodes
        if other != node
    ]
    assert await node.datapath.nodes.upsert(rows) == {}
    assert await node.datapath.nodes.read() == dict(rows)


async def switch_on(stage: Stage, keys: Sequence[MeshKey], **changes: bool) -> None:
    """Receivers first, then programs that mark; with the last of the keys."""
    await receive(stage, keys)
    overhead = max(key.overhead_bytes for key in keys)
    for node in stage.nodes:
        await send(node, keys[-1].id)
        encryption = Encryption(0, overhead, ipsec=True, hears_ipsec=True, **changes)
        await node.reopen(encryption=encryption)


def _id(node: Node, other: Node) -> int:
    """Each node numbers the others in its own way."""
    return 100 * node.stage.nodes.index(node) + node.stage.nodes.index(other) + 1
