"""Service exports in the mesh store: the golden vector, tolerance, refusals."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from model.cluster import ClusterName
from model.service import Protocol, ServiceName
from model.service_export import ExportedPort, ExportType, ServiceExport, SessionAffinity
from wire.etcd import keys, service_export_v1
from wire.etcd.errors import RemoteWireError

BERLIN = ClusterName("berlin")
GOLDEN = (Path(__file__).parents[2] / "golden" / "service_export_v1.json").read_bytes()


def decode(data: bytes) -> ServiceExport:
    return service_export_v1.decode("web/shop", data, BERLIN, "k")


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(GOLDEN) | fields).encode()


def test_it_is_written_as_published() -> None:
    """Decoding and encoding the vector gives the same bytes."""
    assert decode(GOLDEN) == ServiceExport(
        cluster=BERLIN,
        name=ServiceName("web", "shop"),
        created=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        ports=(ExportedPort(80, Protocol.TCP, "http"),),
    )
    assert service_export_v1.encode(decode(GOLDEN)) == GOLDEN


def test_every_field_comes_back() -> None:
    """What a full export says is read as it was written."""
    export = ServiceExport(
        BERLIN,
        ServiceName("web", "shop"),
        datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        (ExportedPort(53, Protocol.UDP, "dns", "example.com/dns"), ExportedPort(1, Protocol.SCTP)),
        ExportType.HEADLESS,
        SessionAffinity.CLIENT_IP,
        30,
        {"example.com/team": "any text at all!"},
        {"team": "shop"},
    )
    data = service_export_v1.encode(export)
    assert decode(data) == export
    assert b'"sessionAffinityConfig":{"clientIP":{"timeoutSeconds":30}},"Annotations"' in data


def test_names_in_any_case_nulls_and_unknown_fields_are_read() -> None:
    """As a Go program would read them."""
    raw = json.loads(GOLDEN)
    raw["annotations"] = {"a": "b"}
    del raw["Annotations"]
    raw |= {"PORTS": None, "sessionAffinityConfig": None, "future": [1]}
    del raw["ports"]
    found = decode(json.dumps(raw).encode())
    assert found.annotations == {"a": "b"}
    assert found.ports == ()
    moment = "2026-03-04T07:06:07.123456789+02:00"
    assert decode(changed(exportCreationTimestamp=moment)).created.hour == 7


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"cluster": "paris"}, "is of cluster 'paris'"),
        ({"name": "other"}, "is of service web/other"),
        ({"type": "NodePort"}, "NodePort"),
        ({"type": ""}, "ExportType"),
        ({"sessionAffinity": "Cookie"}, "Cookie"),
        ({"exportCreationTimestamp": "0001-01-01T00:00:00Z"}, "is no moment"),
        ({"exportCreationTimestamp": "yesterday"}, "is no time"),
        ({"exportCreationTimestamp": "2026-03-04T05:06:07"}, "is no moment"),
        ({"ports": [{"port": 0}]}, "outside 1..65535"),
        ({"ports": [{"port": 1, "protocol": "ICMP"}]}, "'ICMP' is none of"),
        ({"ports": [{"port": 1, "name": "No Name"}]}, "no name of a port"),
        ({"ports": [{"port": 1}] * 101}, "more than 100"),
        ({"Labels": {"a b": "c"}}, 'label "a b=c" is not valid'),
        ({"Labels": {"a": "c d"}}, 'label "a=c d" is not valid'),
        ({"Annotations": {"a b": "c"}}, 'annotation "a b" is no valid name'),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}, "outside 1..86400"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], why: str) -> None:
    """With a sentence that tells the key and the field."""
    with pytest.raises(RemoteWireError, match=r"k: .*") as refused:
        decode(changed(**fields))
    assert why in str(refused.value)


def test_names() -> None:
    """The key says whose it is."""
    assert (
        keys.service_export(BERLIN, ServiceName("web", "shop"))
        == "cilium/state/serviceexports/v1/berlin/web/shop"
    )
    for bad in ("shop", "web/", "/shop", "web/shop/x", "web/Shop"):
        with pytest.raises(RemoteWireError):
            service_export_v1.decode_name(bad, "k")
