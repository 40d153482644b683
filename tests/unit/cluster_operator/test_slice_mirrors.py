"""What stands under the Service behind an import: the exported Service's endpoints, with names."""

from datetime import UTC, datetime
from typing import Any

from cluster_operator.multicluster import service_body
from cluster_operator.slice_mirrors import is_mirror, is_mirrored, mirrors
from mesh.exports import Import, merge
from model.cluster import ClusterName
from model.service import Protocol, ServiceName
from model.service_export import ExportedPort, ExportType, ServiceExport
from wire.k8s.endpointslice import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    EndpointSlice,
    ForZone,
    is_copied,
)
from wire.k8s.meta import ObjectMeta
from wire.k8s.service import Service, ServicePort, ServiceSpec

C1 = ClusterName("c1")
CREW = ServiceName("default", "crew")
BEHIND = ("derived-crew", "uid-1")


def merged(*ports: ExportedPort, type_: ExportType = ExportType.HEADLESS) -> Import:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = merge([ServiceExport(C1, CREW, at, ports, type_)])
    assert found is not None
    return found


def local(*ports: ServicePort, selector: dict[str, str] | None = None) -> Service:
    spec = ServiceSpec(selector=selector, ports=list(ports))
    return Service(metadata=ObjectMeta(name="crew", namespace="default"), spec=spec)


def part(name: str, *endpoints: Endpoint, ports: list[EndpointPort], **more: Any) -> EndpointSlice:
    meta = ObjectMeta(name=name, namespace="default")
    return EndpointSlice(metadata=meta, endpoints=list(endpoints), ports=ports, **more)


HTTP = ExportedPort(80, Protocol.TCP, "http")
OF_HTTP = [EndpointPort(name="http", port=8080, protocol="TCP")]


def test_who_is_mirrored() -> None:
    """Headless exports, and those without selector; a Service that selects goes on selecting."""
    chosen = local(selector={"app": "crew"})
    assert is_mirrored(merged(HTTP), chosen)
    assert is_mirrored(merged(HTTP, type_=ExportType.CLUSTER_SET_IP), local())
    assert not is_mirrored(merged(HTTP, type_=ExportType.CLUSTER_SET_IP), chosen)
    assert not is_mirrored(merged(HTTP), None)
    assert "selector" not in service_body(merged(HTTP), chosen, C1, "u")["spec"]
    with_address = merged(HTTP, type_=ExportType.CLUSTER_SET_IP)
    assert service_body(with_address, chosen, C1, "u")["spec"]["selector"] == {"app": "crew"}


def test_an_endpoint_is_what_it_was() -> None:
    """Host name, node, zone, hints and state; and agents take it for one of ours."""
    endpoint = Endpoint(
        addresses=["10.1.0.5"],
        conditions=EndpointConditions(ready=False, serving=True, terminating=True),
        hostname="one-0",
        node_name="worker",
        zone="east",
        hints=EndpointHints([ForZone("east")]),
    )
    slices = [part("crew-a", endpoint, ports=OF_HTTP)]
    (body,) = mirrors(merged(HTTP), local(ServicePort("http", 80)), BEHIND, C1, slices).values()
    assert body["endpoints"] == [
        {
            "addresses": ["10.1.0.5"],
            "conditions": {"ready": False, "serving": True, "terminating": True},
            "hostname": "one-0",
            "nodeName": "worker",
            "zone": "east",
            "hints": {"forZones": [{"name": "east"}]},
        }
    ]
    meta = body["metadata"]
    assert meta["ownerReferences"][0]["name"] == "derived-crew"
    assert meta["labels"]["kubernetes.io/service-name"] == "derived-crew"
    assert meta["labels"]["multicluster.kubernetes.io/service-name"] == "crew"
    assert meta["labels"]["multicluster.kubernetes.io/source-cluster"] == "c1"
    seen = EndpointSlice(metadata=ObjectMeta(name=meta["name"], labels=meta["labels"]))
    assert is_mirror(seen)
    assert not is_copied(seen)


def test_ports_are_called_as_the_import_calls_them() -> None:
    """A port that the union had to name; one that is not exported is left out."""
    wanted = merged(ExportedPort(80, Protocol.TCP), ExportedPort(443, Protocol.TCP, "https"))
    ports = [EndpointPort("", 8080, "TCP"), EndpointPort("debug", 6060, "TCP")]
    slices = [part("crew-a", Endpoint(addresses=["10.1.0.5"]), ports=ports)]
    own = local(ServicePort("", 80), ServicePort("debug", 6060))
    (body,) = mirrors(wanted, own, BEHIND, C1, slices).values()
    assert body["ports"] == [{"name": "tcp-80", "port": 8080, "protocol": "TCP"}]


def test_a_mirror_for_each_slice() -> None:
    """Its name does not change with what is in it; host names are no addresses."""
    first = part("crew-a", Endpoint(addresses=["10.1.0.5"]), ports=OF_HTTP)
    second = part("crew-b", ports=OF_HTTP)
    names = part("crew-c", address_type="FQDN", ports=OF_HTTP)
    own = local(ServicePort("http", 80))
    both = mirrors(merged(HTTP), own, BEHIND, C1, [first, second, names])
    assert len(both) == 2
    later = part("crew-a", Endpoint(addresses=["10.1.0.9"]), ports=OF_HTTP)
    assert mirrors(merged(HTTP), own, BEHIND, C1, [later]).keys() < both.keys()
