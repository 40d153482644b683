"""How the node reaches pods behind other nodes: which route a prefix gets. Pure."""

from collections.abc import Callable

from agent.config import AgentConfig
from agent.routing_rules import NATIVE
from datapath.devices import Devices
from datapath.routes import Route
from encryption.migration import Kind
from model.address import Address, host_prefix

Far = Callable[[Address], Route | None]  # by the address of the node that pods are behind


def is_native(config: AgentConfig) -> bool:
    """Whether packets to other nodes' pods go out as they are, by routes."""
    return config.routing_mode == NATIVE


def far_routes(config: AgentConfig, router: Address, devices: Devices) -> Far:
    """The host's routes to pods behind a node."""
    if not is_native(config):
        tunnelled = Route(source=router, mtu=devices.route_mtu)
        return lambda node: tunnelled
    if not config.auto_direct_node_routes:
        return lambda node: None  # whoever runs the network between nodes has them
    mtu = devices.route_mtu if devices.route_mtu < devices.device_mtu else None
    # IPsec encrypts for what is behind a node, as its router is: so answers to us are ciphertext.
    source = router if Kind.IPSEC in config.stance.kinds else None

    def direct(node: Address) -> Route | None:
        on_link = any(prefix.covers(host_prefix(node)) for prefix in devices.on_link)
        if config.direct_routing_skip_unreachable and not on_link:
            return None
        return Route(devices.underlay, source, mtu, node)

    return direct
