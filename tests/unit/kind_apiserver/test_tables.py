"""Tables for kubectl get."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kind.apiserver.resources import BUILTIN, Resource, from_crd
from kind.apiserver.tables import duration, json_path, pod_status, to_table

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
BY_TABLE = {r.table: r for r in BUILTIN}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (605, "10m"),
        (150, "2m30s"),
        (3 * 3600, "3h"),
        (3 * 3600 + 1800, "3h30m"),
        (30 * 3600, "30h"),
        (50 * 3600, "2d2h"),
        (10 * 86400, "10d"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    """Shortened as kubectl does."""
    assert duration(seconds) == text


def _status(*containers: Any, **status: Any) -> Any:
    return {"metadata": {"name": "p"}, "status": {"containerStatuses": list(containers)} | status}


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        (_status(phase="Pending"), "Pending"),
        (
            _status({"state": {"waiting": {"reason": "CrashLoopBackOff"}}}, phase="Running"),
            "CrashLoopBackOff",
        ),
        (
            _status({"state": {"terminated": {"reason": "Completed"}}}, phase="Succeeded"),
            "Completed",
        ),
        (_status({"state": {"terminated": {"exitCode": 3}}}, phase="Failed"), "ExitCode:3"),
        (_status(phase="Failed", reason="Evicted"), "Evicted"),
        (
            _status(
                phase="Pending",
                initContainerStatuses=[
                    {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
                ],
            ),
            "Init:Error",
        ),
        (_status({"ready": True, "state": {"running": {}}}, phase="Running"), "Running"),
    ],
)
def test_pod_status(pod: Any, word: str) -> None:
    """The STATUS column says what a person needs, not only the phase."""
    assert pod_status(pod) == word
    pod["metadata"]["deletionTimestamp"] = "x"
    assert pod_status(pod) == "Terminating"


def cells(table: str, obj: Any) -> dict[str, Any]:
    found = to_table(BY_TABLE[table], [obj], NOW, "None", {})
    names = [c["name"] for c in found["columnDefinitions"]]
    return dict(zip(names, found["rows"][0]["cells"], strict=True))


def test_service_columns() -> None:
    """Ports with node ports, external names and pending load balancers."""
    service: Any = {
        "metadata": {"name": "s", "creationTimestamp": "2026-01-01T11:59:00Z"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.0.0.1",
            "selector": {"a": "b"},
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}],
        },
    }
    found = cells("core/services", service)
    assert found["Port(s)"] == "80:30001/TCP"
    assert found["External-IP"] == "<pending>"
    assert found["Age"] == "60s"
    assert found["Selector"] == "a=b"


def test_node_and_slice_columns() -> None:
    """Roles, readiness and cordons of nodes; at most three endpoints of a slice."""
    node = {
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    found = cells("core/nodes", node)
    assert found["Status"] == "Ready,SchedulingDisabled"
    assert found["Roles"] == "control-plane"
    points = [{"addresses": [f"10.0.0.{i}"]} for i in range(5)]
    found = cells(
        "discovery.k8s.io/endpointslices",
        {"metadata": {"name": "s"}, "endpoints": points, "ports": [{"port": 80}]},
    )
    assert found["Endpoints"] == "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more..."


def test_every_resource_has_a_table() -> None:
    """No column of any kind stumbles over an object with nothing in it."""
    for resource in BUILTIN:
        found = to_table(resource, [{"metadata": {"name": "x"}}], NOW, "Metadata", {})
        assert len(found["rows"][0]["cells"]) == len(found["columnDefinitions"])
        assert found["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_json_paths() -> None:
    """The paths that CRDs use in printer columns."""
    obj = {
        "a": {"b": [{"t": "x", "v": 1}, {"t": "y", "v": 2}]},
        "l": {"k8s.io/n": "q", "i.j": 5},
    }
    assert json_path(obj, ".a.b[1].v") == [2]
    assert json_path(obj, '.a.b[?(@.t=="x")].v') == [1]
    assert json_path(obj, ".a.b[*].v") == [1, 2]
    assert json_path(obj, r".l.k8s\.io/n") == ["q"]
    assert json_path(obj, ".l['i.j']") == [5]
    assert json_path(obj, ".none.x") == []


def test_crd_columns() -> None:
    """Types of printer columns: dates become ages, wide ones have priority 1."""
    (resource,) = from_crd(
        {
            "spec": {
                "group": "e.com",
                "scope": "Cluster",
                "names": {"plural": "xs", "kind": "X"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "additionalPrinterColumns": [
                            {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
                            {"name": "Old", "type": "date", "jsonPath": ".spec.t", "priority": 1},
                        ],
                    }
                ],
            }
        }
    )
    assert isinstance(resource, Resource)
    obj = {"metadata": {"name": "x"}, "spec": {"n": 5, "t": "2026-01-01T11:00:00Z"}}
    found = to_table(resource, [obj], NOW, "None", {})
    assert found["rows"][0]["cells"] == ["x", 5, "60m"]
    assert [c["priority"] for c in found["columnDefinitions"]] == [0, 0, 1]
