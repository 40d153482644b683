"""The objects behind an import, and the conditions of an export."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from cluster_operator.config import Settings
from cluster_operator.exports import Controller
from cluster_operator.multicluster import (
    NOT_EXPORTED,
    Statement,
    conditions,
    derived_name,
    import_body,
    service_body,
    statements,
    unchanged,
)
from kube.port import Client
from mesh.exports import Import, merge
from model.cluster import ClusterName
from model.service import Protocol, ServiceName
from model.service_export import ExportedPort, ExportType, ServiceExport, SessionAffinity
from wire.k8s.meta import Condition, ObjectMeta
from wire.k8s.service import Service, ServicePort, ServiceSpec

C1 = ClusterName("c1")
SHOP = ServiceName("default", "shop")
HTTP = ExportedPort(80, Protocol.TCP, "http", "http")


def merged(**fields: Any) -> Import:
    found = merge([ServiceExport(C1, SHOP, datetime(2026, 1, 1, tzinfo=UTC), (HTTP,), **fields)])
    assert found is not None
    return found


def local(*ports: ServicePort) -> Service:
    return Service(
        metadata=ObjectMeta(name="shop", namespace="default"),
        spec=ServiceSpec(selector={"app": "shop"}, ports=list(ports)),
    )


def known(
    type_: str, status: str, reason: str, message: str, since: str, generation: int = 1
) -> Condition:
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )


def test_the_name_is_that_of_other_implementations() -> None:
    """SHA-256 of namespace/name in lower case base32hex, ten characters."""
    assert derived_name(ServiceName("default", "rebel-base")) == "derived-q358ba8kk0"
    assert derived_name(SHOP) != derived_name(ServiceName("default", "shop2"))


def test_a_headless_import_has_no_address() -> None:
    """Neither the import nor the Service."""
    wanted = merged(type=ExportType.HEADLESS)
    assert "ips" not in import_body(wanted, ["10.0.0.1"])["spec"]
    assert service_body(wanted, None, C1, "u")["spec"]["clusterIP"] == "None"


def test_affinity_is_taken_over() -> None:
    """With its time, on both."""
    wanted = merged(affinity=SessionAffinity.CLIENT_IP, affinity_timeout_s=30)
    for body in (import_body(wanted, []), service_body(wanted, None, C1, "u")):
        assert body["spec"]["sessionAffinity"] == "ClientIP"
        assert body["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 30}}


def test_exported_metadata_cannot_take_the_place_of_ours() -> None:
    """The Service stays global and named whatever is exported."""
    wanted = merged(
        annotations={"service.cilium.io/global": "false", "a": "b"},
        labels={"multicluster.kubernetes.io/service-name": "other", "c": "d"},
    )
    meta = service_body(wanted, None, C1, "u")["metadata"]
    assert meta["annotations"] == {"service.cilium.io/global": "true", "a": "b"}
    assert meta["labels"]["multicluster.kubernetes.io/service-name"] == "shop"
    assert meta["labels"]["c"] == "d"


def test_targets_are_those_of_the_exported_service() -> None:
    """By number, by name, equal when not said, none when only others export the port."""

    def target(*ports: ServicePort) -> Any:
        return service_body(merged(), local(*ports), C1, "u")["spec"]["ports"][0]["targetPort"]

    assert target(ServicePort(port=80, target_port=8080)) == 8080
    assert target(ServicePort(port=80, target_port="web")) == "web"
    assert target(ServicePort(port=80)) == 80
    assert target(ServicePort(port=81)) == NOT_EXPORTED
    assert "targetPort" not in service_body(merged(), None, C1, "u")["spec"]["ports"][0]
    assert service_body(merged(), local(), C1, "u")["spec"]["selector"] == {"app": "shop"}
    assert "selector" not in service_body(merged(), None, C1, "u")["spec"]


def test_conditions_keep_their_time_and_those_of_others() -> None:
    """Only what has changed is new; a conflict that is over is not mentioned."""
    before = [
        known("Other", "True", "R", "M", "2020"),
        known("Valid", "True", "Valid", "old words", "2021"),
        known("Ready", "False", "Failed", "M", "2022"),
        known("Conflict", "True", "TypeConflict", "M", "2023"),
    ]
    said = statements(None, None, "")
    after = conditions(before, said, 2, "now")
    assert [(c["type"], c["status"], c["lastTransitionTime"]) for c in after] == [
        ("Other", "True", "2020"),
        ("Valid", "True", "2021"),
        ("Ready", "True", "now"),
    ]
    assert not unchanged(before, after)
    again = [
        known(c["type"], c["status"], c["reason"], c["message"], c["lastTransitionTime"], 2)
        for c in after
    ]
    assert unchanged(again, conditions(again, said, 2, "later"))


def test_a_failure_is_said_in_ready() -> None:
    """The export is valid, but not in force."""
    said = statements(None, None, "why not")
    assert Statement("Ready", False, "Failed", "why not") in said


def test_a_cluster_outside_of_any_mesh_is_told_so() -> None:
    """One sentence that names the settings."""
    settings = Settings(clustermesh_enable_mcs_api=True, cluster_name="c1", cluster_id=0)
    with pytest.raises(ValueError, match=r"needs cluster-name and cluster-id: .*cluster ID 0"):
        Controller(cast("Client", None), settings)
