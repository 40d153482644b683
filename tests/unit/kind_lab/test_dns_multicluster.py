"""Names of the set of clusters in kind.dns."""

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from kind.dns import answer, multicluster, zone


def imported(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def part(cluster: str, *endpoints: dict[str, Any]) -> dict[str, Any]:
    labels = {multicluster.SERVICE_LABEL: "db", multicluster.CLUSTER_LABEL: cluster}
    return {
        "metadata": {"name": f"db-{cluster}", "namespace": "shop", "labels": labels},
        "endpoints": list(endpoints),
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
    }


IMPORTS = [
    imported(
        "web",
        type="ClusterSetIP",
        ips=["10.96.7.7", "fd00::7"],
        ports=[{"name": "http", "port": 80, "protocol": "TCP"}],
    ),
    imported("soon", type="ClusterSetIP", ports=[]),
    imported("db", type="Headless"),
]
SLICES = [
    part("c1", {"addresses": ["10.1.0.1"], "hostname": "db-0"}),
    part(
        "c2",
        {"addresses": ["10.2.0.1"], "hostname": "db-0"},
        {"addresses": ["10.2.0.2"], "conditions": {"ready": False}},
        {"addresses": ["10.2.0.3"]},
    ),
]


def ask(name: str, kind: str = "A") -> tuple[dns.message.Message, list[str]]:
    made = zone.build("cluster.local", [], SLICES, multicluster.DOMAIN)
    multicluster.add(made, IMPORTS, SLICES)
    reply = answer.answer(dns.message.make_query(name, kind).to_wire(), made, False)
    assert reply is not None
    message = dns.message.from_wire(reply)
    return message, sorted(str(item) for rrset in message.answer for item in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "answers"),
    [
        ("web.shop.svc.clusterset.local", "A", ["10.96.7.7"]),
        ("WEB.shop.svc.clusterset.local", "AAAA", ["fd00::7"]),
        (
            "_http._tcp.web.shop.svc.clusterset.local",
            "SRV",
            ["0 100 80 web.shop.svc.clusterset.local."],
        ),
        ("soon.shop.svc.clusterset.local", "A", []),
        ("db.shop.svc.clusterset.local", "A", ["10.1.0.1", "10.2.0.1", "10.2.0.3"]),
        ("db-0.c1.db.shop.svc.clusterset.local", "A", ["10.1.0.1"]),
        ("db-0.c2.db.shop.svc.clusterset.local", "A", ["10.2.0.1"]),
        ("10-2-0-3.c2.db.shop.svc.clusterset.local", "A", ["10.2.0.3"]),
        (
            "_sql._tcp.db.shop.svc.clusterset.local",
            "SRV",
            [
                "0 100 5432 10-2-0-3.c2.db.shop.svc.clusterset.local.",
                "0 100 5432 db-0.c1.db.shop.svc.clusterset.local.",
                "0 100 5432 db-0.c2.db.shop.svc.clusterset.local.",
            ],
        ),
    ],
)
def test_names(name: str, kind: str, answers: list[str]) -> None:
    """Imports, and the endpoints of headless ones by cluster."""
    message, found = ask(name, kind)
    assert message.rcode() == dns.rcode.NOERROR
    assert message.flags & dns.flags.AA
    assert found == answers


def test_what_is_not_there_does_not_exist() -> None:
    """Of our domain we are the authority, of others not."""
    message, _ = ask("other.shop.svc.clusterset.local")
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert str(message.authority[0].name) == "clusterset.local."
    assert ask("clusterset.example")[0].rcode() == dns.rcode.REFUSED
