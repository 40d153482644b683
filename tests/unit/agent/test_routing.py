"""Which route a prefix behind another node gets."""

import pytest

from agent.config import load
from agent.routing import far_routes, is_native
from datapath.devices import Devices
from datapath.routes import Route
from model.address import parse_address, parse_prefix

ROUTER, NEAR, AWAY = (parse_address(t) for t in ("10.1.0.1", "192.0.2.7", "203.0.113.7"))
AUTO = ("--routing-mode=native", "--auto-direct-node-routes")


def route(node: object, *flags: str, route_mtu: int = 1500) -> Route | None:
    devices = Devices(
        *("eth0", 2, 3, bytes(6), 4, bytes(6), 0, 1500, route_mtu),
        on_link=(parse_prefix("192.0.2.0/24"),),
    )
    return far_routes(load(flags, {}), ROUTER, devices)(node)  # type: ignore[arg-type]


def test_by_the_tunnel() -> None:
    """To our programs, from the router's address, in packets that fit inside."""
    assert route(NEAR, route_mtu=1450) == Route(source=ROUTER, mtu=1450)
    assert not is_native(load((), {}))


@pytest.mark.parametrize(("mtu", "wanted"), [(1500, None), (1420, 1420)])
def test_by_the_node_itself(mtu: int, wanted: int | None) -> None:
    """The device's size, unless something is put around the packets."""
    assert route(NEAR, *AUTO, route_mtu=mtu) == Route("eth0", mtu=wanted, gateway=NEAR)


def test_with_ipsec_the_node_speaks_as_its_router() -> None:
    """Whose address is behind it, so that pods' answers are encrypted as they are for pods."""
    for flag in ("--enable-ipsec=true", "--encryption-accepts=ipsec"):
        assert route(NEAR, *AUTO, flag) == Route("eth0", source=ROUTER, gateway=NEAR)
    assert route(NEAR, *AUTO, "--enable-wireguard=true") == Route("eth0", gateway=NEAR)


def test_others_may_have_the_routes() -> None:
    """Of nodes that are on no link of ours, or of all."""
    assert route(NEAR, "--routing-mode=native") is None
    assert route(AWAY, *AUTO) == Route("eth0", gateway=AWAY)  # the kernel refuses it, with a name
    skip = "--direct-routing-skip-unreachable"
    assert route(AWAY, *AUTO, skip) is None
    assert route(NEAR, *AUTO, skip) == Route("eth0", gateway=NEAR)
