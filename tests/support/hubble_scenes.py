"""Flows of every kind with the lines that they are printed as, and the command against them."""

import asyncio
from pathlib import Path
from typing import Any

from hubble.peers import PeerTable
from tests.support.cli import Result, isthmus
from tests.support.hubble import MemorySource, flow, observing, record

CART = {"identity": 21001, "namespace": "shop", "pod_name": "cart-6c9d"}
PAY = {"identity": 21002, "namespace": "shop", "pod_name": "pay-77f"}
ADDRESSES = {"source": "10.1.0.5", "destination": "10.1.0.9", "ipVersion": "IPv4"}
BACK = {"source": "10.1.0.9", "destination": "10.1.0.5", "ipVersion": "IPv4"}
VERDICT = {"event_type": {"type": 5}, "Summary": "TCP Flags: SYN"}
ALLOWED_BY = [{"name": "allow-cart", "namespace": "shop", "kind": "CiliumNetworkPolicy"}]


def tcp(source: int, destination: int, **flags: bool) -> dict[str, Any]:
    ports = {"source_port": source, "destination_port": destination, "flags": flags}
    return {"TCP": {name: value for name, value in ports.items() if value}}


def there(**fields: Any) -> dict[str, Any]:
    return {"source": CART, "destination": PAY, "IP": ADDRESSES, **fields}


def back(**fields: Any) -> dict[str, Any]:
    return {"source": PAY, "destination": CART, "IP": BACK, "is_reply": True, **fields}


# What the ring holds, and its compact line with policy names (layouts of hubble 1.19.4).
SCENES: list[tuple[dict[str, Any], str]] = [
    (
        there(l4=tcp(41000, 8080), Summary="TCP Flags: SYN"),
        "shop/cart-6c9d:41000 (ID:21001) -> shop/pay-77f:8080 (ID:21002) to-endpoint FORWARDED "
        "(TCP Flags: SYN)",
    ),
    (
        back(
            l4=tcp(8080, 41000),
            event_type={"type": 4, "sub_type": 3},
            Summary="TCP Flags: SYN, ACK",
        ),
        "shop/cart-6c9d:41000 (ID:21001) <- shop/pay-77f:8080 (ID:21002) to-stack FORWARDED "
        "(TCP Flags: SYN, ACK)",
    ),
    (
        there(
            l4=tcp(41001, 9090),
            verdict="DROPPED",
            event_type={"type": 1, "sub_type": 133},
            is_reply=None,
            Summary="TCP Flags: SYN",
        ),
        "shop/cart-6c9d:41001 (ID:21001) <> shop/pay-77f:9090 (ID:21002) Policy denied DROPPED "
        "(TCP Flags: SYN)",
    ),
    (
        there(
            **VERDICT,
            l4=tcp(41002, 8080),
            policy_match_type=2,
            traffic_direction="INGRESS",
            ingress_allowed_by=ALLOWED_BY,
        ),
        "shop/cart-6c9d:41002 (ID:21001) -> shop/pay-77f:8080 (ID:21002) "
        "policy-verdict:L3-L4 INGRESS ALLOWED BY allow-cart (CiliumNetworkPolicy) (TCP Flags: SYN)",
    ),
    (
        there(
            **VERDICT,
            l4=tcp(41003, 9090),
            verdict="DROPPED",
            is_reply=None,
            traffic_direction="INGRESS",
        ),
        "shop/cart-6c9d:41003 (ID:21001) <> shop/pay-77f:9090 (ID:21002) "
        "policy-verdict:none INGRESS DENIED (TCP Flags: SYN)",
    ),
    (
        there(
            event_type={"type": 5},
            l4={"UDP": {"source_port": 5000, "destination_port": 53}},
            verdict="AUDIT",
            policy_match_type=3,
            traffic_direction="EGRESS",
            Summary="UDP",
        ),
        "shop/cart-6c9d:5000 (ID:21001) -> shop/pay-77f:53 (ID:21002) "
        "policy-verdict:L4-Only EGRESS AUDITED (UDP)",
    ),
    (
        there(
            **VERDICT,
            l4=tcp(41004, 80),
            policy_match_type=1,
            traffic_direction="EGRESS",
            auth_type="SPIRE",
        ),
        "shop/cart-6c9d:41004 (ID:21001) -> shop/pay-77f:80 (ID:21002) "
        "policy-verdict:L3-Only EGRESS ALLOWED (TCP Flags: SYN; Auth: SPIRE)",
    ),
    (
        back(
            l4=tcp(80, 41004),
            event_type={"type": 129},
            l7={"type": "RESPONSE", "http": {"code": 200}},
            Summary="HTTP/1.1 200 7ms (GET http://pay.shop/charge)",
        ),
        "shop/cart-6c9d:41004 (ID:21001) <- shop/pay-77f:80 (ID:21002) http-response FORWARDED "
        "(HTTP/1.1 200 7ms (GET http://pay.shop/charge))",
    ),
    (
        there(
            l4={"UDP": {"source_port": 40000, "destination_port": 53}},
            event_type={"type": 129},
            l7={"type": "REQUEST", "dns": {"observation_source": "proxy"}},
            Summary="DNS Query pay.shop. A",
        ),
        "shop/cart-6c9d:40000 (ID:21001) -> shop/pay-77f:53 (ID:21002) dns-request proxy FORWARDED "
        "(DNS Query pay.shop. A)",
    ),
    (
        there(
            l4=tcp(0, 80),
            destination={"identity": 2},
            destination_service={"name": "pay", "namespace": "shop"},
            verdict="TRACED",
            event_type={"type": 7, "sub_type": 1},
            sock_xlate_point="SOCK_XLATE_POINT_PRE_DIRECTION_FWD",
            is_reply=None,
            Summary="TCP",
        ),
        "shop/cart-6c9d (ID:21001) <> shop/pay:80 (world) pre-xlate-fwd TRACED (TCP)",
    ),
    (
        there(
            l4={"ICMPv4": {"type": 8}},
            destination={"identity": 2},
            destination_names=["api.example.org"],
            event_type={"type": 4, "sub_type": 11},
            Summary="ICMPv4 EchoRequest",
        ),
        "shop/cart-6c9d (ID:21001) -> api.example.org (world) to-network FORWARDED "
        "(ICMPv4 EchoRequest)",
    ),
    (
        {
            "ethernet": {"source": "aa:bb:cc:00:00:01", "destination": "ff:ff:ff:ff:ff:ff"},
            "verdict": "DROPPED",
            "event_type": {"type": 1, "sub_type": 166},
            "is_reply": None,
            "Summary": "Ethernet",
        },
        "aa:bb:cc:00:00:01 (unknown) <> ff:ff:ff:ff:ff:ff (unknown) Unsupported L2 protocol "
        "DROPPED (Ethernet)",
    ),
    (
        there(
            l4=tcp(41010, 80),
            verdict="VERDICT_UNKNOWN",
            event_type={"type": 3, "sub_type": 4},
            debug_capture_point="DBG_CAPTURE_DELIVERY",
            is_reply=None,
            Summary="TCP Flags: ACK",
        ),
        "shop/cart-6c9d:41010 (ID:21001) <> shop/pay-77f:80 (ID:21002) "
        "DBG_CAPTURE_DELIVERY VERDICT_UNKNOWN (TCP Flags: ACK)",
    ),
    (
        there(
            source={"identity": 1},
            IP={"source": "fd00::1", "destination": "fd00::2"},
            destination={},
            l4=tcp(1, 2),
            Summary="evil\x1b[2J\nname",
            ip_trace_id={"trace_id": "7"},
        ),
        "[fd00::1]:1 (host) -> [fd00::2]:2 (unknown) to-endpoint FORWARDED "
        "(IP Trace ID: 7; evil\\x1b[2J\\nname)",
    ),
]


def source_of_scenes() -> MemorySource:
    source = MemorySource()
    for number, (fields, _) in enumerate(SCENES, 1):
        kept = {name: value for name, value in fields.items() if value is not None}
        made = flow(number, **kept)
        if fields.get("is_reply", False) is None:
            made.ClearField("is_reply")
        source.add(record(made))
    return source


async def run(
    tmp_path: Path, source: MemorySource, *arguments: str, peers: PeerTable | None = None
) -> Result:
    """The command against an observer of the source."""
    path = tmp_path / "h.sock"
    async with observing(source, path, peers):
        return await asyncio.to_thread(isthmus, "hubble", *arguments, "--server", f"unix://{path}")


def stamp(number: int) -> str:
    return f"Jun 15 15:06:{40 + number:02d}.000"
