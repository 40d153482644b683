"""The EndpointSlices made of what another cluster says."""

from typing import Any

import msgspec
import pytest

from cluster_operator.slice_copies import copies, is_synced, service_of, source_of
from model.address import Address, parse_address
from model.cluster import ClusterId, ClusterName
from model.service import L4, BackendState, Protocol, ServiceName, SharedService, Zone
from wire.k8s.endpointslice import EndpointSlice, is_copied
from wire.k8s.meta import ObjectMeta
from wire.k8s.service import Service, ServicePort, ServiceSpec

C2 = ClusterName("c2")
WEB = ServiceName("default", "web")
HTTP = {"http": L4(8080, Protocol.TCP)}
GLOBAL, SYNC = "service.cilium.io/global", "service.cilium.io/global-sync-endpoint-slices"


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    made: dict[str, Any] = {"cluster_ip": "None", "ports": [ServicePort(name="http", port=80)]}
    return Service(
        metadata=ObjectMeta(
            name="web",
            namespace="default",
            uid="u1",
            labels={"app": "web"},
            annotations=annotations if annotations is not None else {GLOBAL: "true"},
        ),
        spec=ServiceSpec(**made | spec),
    )


def address(number: int) -> Address:
    return parse_address("10.2.0.1").offset(number)


def account(
    count: int = 0, backends: dict[Address, dict[str, L4]] | None = None, **fields: Any
) -> SharedService:
    found = backends if backends is not None else {address(n): HTTP for n in range(count)}
    return SharedService(C2, ClusterId(2), WEB, backends=found, **fields)


def read(bodies: dict[str, dict[str, Any]]) -> dict[str, EndpointSlice]:
    return {n: msgspec.convert(b, EndpointSlice) for n, b in bodies.items()}


@pytest.mark.parametrize(
    ("annotations", "address", "expected"),
    [
        ({}, "None", False),
        ({GLOBAL: "true"}, "None", True),
        ({GLOBAL: "true"}, "10.96.0.7", False),
        ({GLOBAL: "true", SYNC: "true"}, "10.96.0.7", True),
        ({GLOBAL: "true", SYNC: "false"}, "None", False),
        ({GLOBAL: "true", SYNC: "False"}, "None", False),
        ({GLOBAL: "true", SYNC: "yes"}, "None", True),  # not understood: the default
        ({GLOBAL: "false", SYNC: "true"}, "None", False),
        ({SYNC: "true"}, "None", False),
    ],
)
def test_who_gets_them(annotations: dict[str, str], address: str, expected: bool) -> None:
    """Global services: headless ones unless told otherwise, others only when told."""
    assert is_synced(service(annotations, cluster_ip=address)) is expected


def test_a_slice_says_whose_it_is() -> None:
    """Labels of the Service, its cluster, its manager and its owner; the state of each endpoint."""
    one, two, three = (address(n) for n in range(3))
    said = account(
        3,
        hostnames={one: "web-0"},
        zones={one: Zone("east")},
        states={two: BackendState.TERMINATING, three: BackendState.QUARANTINED},
    )
    ((name, body),) = copies(service(), said, {}, 100).items()
    assert name.startswith("web-c2-")
    assert body["metadata"]["labels"] == {
        "app": "web",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io",
        "multicluster.kubernetes.io/source-cluster": "c2",
        "service.kubernetes.io/headless": "",
    }
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Service", "web", "u1")
    assert body["addressType"] == "IPv4"
    assert body["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert body["endpoints"] == [
        {
            "addresses": ["10.2.0.1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "hostname": "web-0",
            "zone": "east",
        },
        {
            "addresses": ["10.2.0.2"],
            "conditions": {"ready": False, "serving": True, "terminating": True},
        },
        {
            "addresses": ["10.2.0.3"],
            "conditions": {"ready": False, "serving": False, "terminating": False},
        },
    ]
    (made,) = read({name: body}).values()
    assert is_copied(made)
    assert service_of(made) == WEB
    assert source_of(made) == C2


def test_families_and_ports_have_slices_of_their_own() -> None:
    """A slice has one family and one set of ports; a port of another protocol is not the same."""
    said = account(
        backends={
            address(0): HTTP,
            address(1): {"http": L4(9090, Protocol.TCP)},
            address(2): {"http": L4(8080, Protocol.UDP)},  # not what the Service has
            address(3): {"other": L4(8080, Protocol.TCP)},
            address(4): {"http": L4(8080, Protocol.ANY)},
            parse_address("fd00::1"): HTTP,
        }
    )
    found = sorted(
        (b["addressType"], b["ports"][0]["port"], [e["addresses"][0] for e in b["endpoints"]])
        for b in copies(service(), said, {}, 100).values()
    )
    assert found == [
        ("IPv4", 8080, ["10.2.0.1", "10.2.0.5"]),
        ("IPv4", 9090, ["10.2.0.2"]),
        ("IPv6", 8080, ["fd00::1"]),
    ]


def test_a_service_without_ports_has_addresses() -> None:
    """As headless services may be: DNS needs no port."""
    (body,) = copies(service(ports=None), account(2), {}, 100).values()
    assert body["ports"] == []
    assert len(body["endpoints"]) == 2


def test_one_more_endpoint_changes_one_slice() -> None:
    """Endpoints stay in their slice; an empty slice is not wanted any more."""
    first = copies(service(), account(250), {}, 100)
    assert sorted(len(b["endpoints"]) for b in first.values()) == [50, 100, 100]
    assert copies(service(), account(250), read(first), 100) == first
    more = copies(service(), account(251), read(first), 100)
    assert [n for n in more if more[n] != first.get(n)] == [
        n for n, b in first.items() if len(b["endpoints"]) == 50
    ]
    gone = next(n for n, b in first.items() if len(b["endpoints"]) == 50)
    stay = {a: HTTP for n in first if n != gone for a in _of(first[n])}
    assert copies(service(), account(backends=stay), read(first), 100) == {
        n: b for n, b in first.items() if n != gone
    }


def _of(body: dict[str, Any]) -> list[Address]:
    return [parse_address(e["addresses"][0]) for e in body["endpoints"]]
