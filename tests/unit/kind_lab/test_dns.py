"""kind.dns: the names of a cluster."""

from ipaddress import ip_address
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from kind.dns import answer, zone

DOMAIN = "cluster.local"


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def endpoint_slice(name: str, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{name}-1",
            "namespace": "shop",
            "labels": {zone.SERVICE_LABEL: name},
        },
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


SERVICES = [
    service(
        "web",
        clusterIP="10.101.0.7",
        clusterIPs=["10.101.0.7", "fd00::7"],
        ports=[{"name": "http", "port": 80, "protocol": "TCP"}],
    ),
    service("db", clusterIP="None", ports=[{"name": "http", "port": 80}]),
    service("out", type="ExternalName", externalName="web.shop.svc.cluster.local"),
    service("far", type="ExternalName", externalName="example.com"),
]
SLICES = [
    endpoint_slice(
        "db",
        [
            {"addresses": ["10.1.1.5"], "hostname": "db-0", "conditions": {"ready": True}},
            {"addresses": ["10.1.1.6"], "conditions": {}},
            {"addresses": ["10.1.1.7"], "conditions": {"ready": False}},
        ],
    )
]
ZONE = zone.build(DOMAIN, SERVICES, SLICES)


def ask(name: str, kind: str = "A", tcp: bool = False) -> dns.message.Message:
    reply = answer.answer(dns.message.make_query(name, kind).to_wire(), ZONE, tcp)
    assert reply is not None
    return dns.message.from_wire(reply)


def texts(reply: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in reply.answer for item in rrset]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc.cluster.local", "A", ["10.101.0.7"]),
        ("WEB.Shop.svc.Cluster.local", "A", ["10.101.0.7"]),
        ("web.shop.svc.cluster.local", "AAAA", ["fd00::7"]),
        ("_http._tcp.web.shop.svc.cluster.local", "SRV", ["0 100 80 web.shop.svc.cluster.local."]),
        ("db.shop.svc.cluster.local", "A", ["10.1.1.5", "10.1.1.6"]),
        ("db-0.db.shop.svc.cluster.local", "A", ["10.1.1.5"]),
        ("10-1-1-6.db.shop.svc.cluster.local", "A", ["10.1.1.6"]),
        ("7.0.101.10.in-addr.arpa", "PTR", ["web.shop.svc.cluster.local."]),
        ("5.1.1.10.in-addr.arpa", "PTR", ["db-0.db.shop.svc.cluster.local."]),
        ("out.shop.svc.cluster.local", "A", ["web.shop.svc.cluster.local.", "10.101.0.7"]),
        ("far.shop.svc.cluster.local", "CNAME", ["example.com."]),
    ],
)
def test_records(name: str, kind: str, expected: list[str]) -> None:
    """Every kind of record that the specification lists."""
    reply = ask(name, kind)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert sorted(texts(reply)) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("nothing.shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("web.shop.svc.cluster.local", "TXT", dns.rcode.NOERROR),
        ("db.shop.svc.cluster.local", "AAAA", dns.rcode.NOERROR),
        ("shop.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("cluster.local", "A", dns.rcode.NOERROR),
        ("web.shop.svc.cluster.local.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("9.9.9.9.in-addr.arpa", "PTR", dns.rcode.NXDOMAIN),
        ("example.com", "A", dns.rcode.REFUSED),
        ("evilcluster.local", "A", dns.rcode.REFUSED),
    ],
)
def test_absence(name: str, kind: str, expected: dns.rcode.Rcode) -> None:
    """No such name, no such type, and not our name are three different answers."""
    reply = ask(name, kind)
    assert reply.rcode() == expected
    assert not reply.answer
    if expected == dns.rcode.NXDOMAIN and name.endswith("cluster.local"):
        assert reply.authority, "a resolver needs the SOA to remember that there is none"


def test_large_answer_goes_to_tcp() -> None:
    """An answer that does not fit a datagram comes truncated by UDP and whole by TCP."""
    endpoints = [{"addresses": [str(ip_address("10.1.2.0") + i)]} for i in range(200)]
    big = zone.build(DOMAIN, [service("db", clusterIP="None")], [endpoint_slice("db", endpoints)])
    query = dns.message.make_query("db.shop.svc.cluster.local", "A").to_wire()
    short = answer.answer(query, big, over_tcp=False)
    whole = answer.answer(query, big, over_tcp=True)
    assert short is not None
    assert whole is not None
    assert len(short) <= 512
    assert dns.message.from_wire(short).flags & dns.flags.TC
    assert len(texts(dns.message.from_wire(whole))) == 200


@pytest.mark.parametrize("junk", [b"", b"\0" * 11, b"\xff" * 40])
def test_junk_gets_no_answer(junk: bytes) -> None:
    """What is not a question is not answered: answers to answers would go on for ever."""
    assert answer.answer(junk, ZONE, over_tcp=False) is None


def test_answers_are_not_answered() -> None:
    """A packet with the response bit set is dropped."""
    reply = dns.message.make_response(dns.message.make_query("cluster.local", "A"))
    assert answer.answer(reply.to_wire(), ZONE, over_tcp=False) is None
