"""What is garbage, decided from lists."""

from datetime import UTC, datetime, timedelta

import pytest

from cluster_operator.garbage import (
    Delete,
    Mark,
    format_time,
    orphaned_endpoints,
    orphaned_nodes,
    plan_identities,
    used_identities,
)
from wire.k8s.cilium_endpoint import CiliumEndpoint, CiliumEndpointStatus, EndpointIdentity
from wire.k8s.cilium_identity import GC_MARK, CiliumIdentity
from wire.k8s.cilium_node import CiliumNode
from wire.k8s.core import Node
from wire.k8s.meta import ObjectMeta
from wire.k8s.pod import Pod, PodStatus

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
KEEP = timedelta(minutes=30)


def meta(name: str, mark: str | None = None) -> ObjectMeta:
    annotations = {GC_MARK: mark} if mark is not None else None
    return ObjectMeta(
        namespace="d", name=name, uid=f"uid-{name}", resource_version="9", annotations=annotations
    )


def identity(mark: datetime | str | None = None) -> CiliumIdentity:
    text = format_time(mark) if isinstance(mark, datetime) else mark
    return CiliumIdentity(metadata=meta("300", text))


DELETED = Delete("d", "300", "uid-300", "9")


@pytest.mark.parametrize(
    ("mark", "used", "expected"),
    [
        (None, True, []),
        (None, False, [Mark("300", NOW)]),
        (NOW - timedelta(minutes=29), False, []),
        (NOW - timedelta(minutes=30), False, [DELETED]),
        (NOW - timedelta(days=1), True, [Mark("300", None)]),
        ("rubbish", False, [Mark("300", NOW)]),
        ("2026-11-21T02:00:00", False, [DELETED]),  # no zone: UTC
    ],
)
def test_unused_identities_go_in_two_steps(
    mark: datetime | str | None, used: bool, expected: list[Mark | Delete]
) -> None:
    """Mark first, delete when still unused later; use takes the mark away, however old."""
    assert plan_identities([identity(mark)], {"300"} if used else set(), NOW, KEEP) == expected


def test_identities_in_use_are_those_of_endpoints() -> None:
    """An endpoint without identity uses none."""
    status = CiliumEndpointStatus(identity=EndpointIdentity(id=300))
    assert used_identities([CiliumEndpoint(status=status), CiliumEndpoint()]) == {"300"}


def test_endpoints_go_with_their_pods() -> None:
    """A pod that has ended for good holds no endpoint; one that only waits does."""
    endpoints = [CiliumEndpoint(metadata=meta(name)) for name in ("runs", "waits", "done", "gone")]
    pods = [
        Pod(metadata=meta(name), status=PodStatus(phase=phase))
        for name, phase in (("runs", "Running"), ("waits", "Pending"), ("done", "Succeeded"))
    ]
    assert [d.name for d in orphaned_endpoints(endpoints, pods)] == ["done", "gone"]


def test_nodes_go_with_their_nodes() -> None:
    """A CiliumNode is named like its Kubernetes node."""
    ciliumnodes = [CiliumNode(metadata=meta("a")), CiliumNode(metadata=meta("b"))]
    assert [d.name for d in orphaned_nodes(ciliumnodes, [Node(metadata=meta("a"))])] == ["b"]
