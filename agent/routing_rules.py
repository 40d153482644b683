"""Which settings of routing go together. Pure."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import AgentConfig

NATIVE = "native"


def refusal(config: "AgentConfig") -> str | None:
    """What cannot be, and the remedy; ``None`` when all is well."""
    native = config.routing_mode == NATIVE
    if config.auto_direct_node_routes and not native:
        return (
            'auto-direct-node-routes is "true" while routing-mode is "tunnel": pods of other nodes '
            "are reached through the tunnel, not by routes: set routing-mode to native, or leave "
            "it off"
        )
    if config.direct_routing_skip_unreachable and not config.auto_direct_node_routes:
        return (
            'direct-routing-skip-unreachable is "true" while auto-direct-node-routes is not: '
            "there are no routes to skip"
        )
    if native and config.enable_ipv6:
        return (
            'routing-mode is "native" while enable-ipv6 is "true": native routing is for IPv4 '
            "only: use the tunnel, or leave IPv6 off"
        )
    return None
