"""What stands beside an agent's node on its underlay: the world, other nodes, the API server."""

from tests.support.agent import AgentNode
from tests.support.nodes import new_namespace, sh


def beside(node: AgentNode, second: str, *addresses: str) -> str:
    """A namespace with these addresses; the node gets a ``second`` one of its own."""
    outside = new_namespace("outside")
    sh(
        f"ip -n {node.namespace} link set wire0 netns {outside};"
        f" ip -n {outside} link set lo up; ip -n {outside} link set wire0 up;"
        f" ip -n {node.namespace} addr add {second}/32 dev under0"
    )
    for address in addresses:
        sh(f"ip -n {outside} addr add {address}/24 dev wire0")
    sh(f"ip -n {outside} route add {second} dev wire0")
    return outside
