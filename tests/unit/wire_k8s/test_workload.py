"""What a pod is a copy of."""

import pytest

from wire.k8s.meta import ObjectMeta, OwnerReference
from wire.k8s.pod import Pod
from wire.k8s.workload import workload_of


def pod(kind: str, name: str, labels: dict[str, str] | None = None, **more: object) -> Pod:
    owner = OwnerReference(kind=kind, name=name, controller=bool(more.get("controller", True)))
    generated = str(more.get("generate_name", name + "-"))
    meta = ObjectMeta(
        name=name + "-x", generate_name=generated, labels=labels, owner_references=[owner]
    )
    return Pod(metadata=meta)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod("ReplicaSet", "web-5d4f", {"pod-template-hash": "5d4f"}), ("web", "Deployment")),
        (pod("ReplicaSet", "web-5d4f"), ("web-5d4f", "ReplicaSet")),
        (pod("ReplicaSet", "web-5d4f", {"pod-template-hash": "other"}), ("web-5d4f", "ReplicaSet")),
        (pod("Job", "backup-28391045"), ("backup", "CronJob")),
        (pod("Job", "backup-123"), ("backup-123", "Job")),
        (pod("DaemonSet", "cilium"), ("cilium", "DaemonSet")),
        (pod("StatefulSet", "db"), ("db", "StatefulSet")),
        (
            pod("ReplicationController", "app-3", {"deploymentconfig": "app"}),
            ("app", "DeploymentConfig"),
        ),
        (pod("DaemonSet", "cilium", controller=False), None),
        (pod("Node", "static", generate_name=""), None),
        (Pod(metadata=ObjectMeta(name="alone", generate_name="alone-")), None),
    ],
)
def test_the_owner_that_people_know(found: Pod, expected: tuple[str, str] | None) -> None:
    assert workload_of(found) == expected
