"""Counts about the API server."""

from typing import Any

import pytest

from kube.observed import Observed, template
from wire.k8s.meta import ObjectMeta
from wire.k8s.pod import Pod


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/pods", "/api/v1/pods"),
        ("/api/v1/nodes/n1", "/api/v1/nodes/{name}"),
        ("/api/v1/namespaces/shop", "/api/v1/namespaces/{name}"),
        ("/api/v1/namespaces/shop/pods", "/api/v1/namespaces/{namespace}/pods"),
        ("/api/v1/namespaces/shop/pods/a/log", "/api/v1/namespaces/{namespace}/pods/{name}/log"),
        ("/apis/cilium.io/v2/ciliumnodes/n1", "/apis/cilium.io/v2/ciliumnodes/{name}"),
        (
            "/apis/cilium.io/v2/namespaces/shop/ciliumendpoints/a/status",
            "/apis/cilium.io/v2/namespaces/{namespace}/ciliumendpoints/{name}/status",
        ),
        ("/version", "/version"),
    ],
)
def test_paths_without_names(path: str, said: str) -> None:
    assert template(path) == said


def test_objects_by_what_happened_to_them() -> None:
    """What is as it was is told apart; what cannot be read is not valid."""
    observed = Observed()

    def pod(version: str, **meta: Any) -> Pod:
        return Pod(metadata=ObjectMeta(name="a", resource_version=version, **meta))

    first, again, other = pod("1"), pod("2"), pod("3", labels={"app": "a"})
    for old, new in ((None, first), (first, again), (again, other), (other, None)):
        observed.told("Pod", old, new)
    observed.rejected("Pod", 2)
    assert observed.events.values == {
        ("Pod", "create", "success"): 1,
        ("Pod", "update", "success"): 2,
        ("Pod", "delete", "success"): 1,
        ("Pod", "update", "failed"): 2,
    }
    assert observed.received.values["Pod", "update", "true", "true"] == 1
    assert observed.received.values["Pod", "update", "true", "false"] == 1
    assert observed.received.values["Pod", "update", "false", "false"] == 2


def test_slices_are_what_dashboards_call_endpoints() -> None:
    observed = Observed()
    observed.rejected("EndpointSlice", 1)
    assert observed.events.values == {("Endpoint", "update", "failed"): 1}
