"""Which pod is meant: names, workloads, beginnings; what is ambiguous is said."""

from typing import Any

import pytest

from cli.pod_names import pick


def pod(name: str, kind: str = "", owner: str = "", address: str = "10.0.0.1") -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": "default"}
    if kind:
        meta["generateName"] = f"{owner}-"
        meta["labels"] = {"pod-template-hash": owner.rpartition("-")[2]}
        meta["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "u", "controller": True}
        ]
    return {"metadata": meta, "status": {"podIP": address} if address else {}}


PODS = [
    pod("x-wing-7d9-bbbbb", "ReplicaSet", "x-wing-7d9"),
    pod("x-wing-7d9-aaaaa", "ReplicaSet", "x-wing-7d9", address=""),
    pod("x-wing-8c4-ccccc", "ReplicaSet", "x-wing-8c4"),
    pod("x-wing-spare-5f6-ddddd", "ReplicaSet", "x-wing-spare-5f6"),
    pod("two-0", "StatefulSet", "two"),
    pod("alone"),
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("x-wing-8c4-ccccc", "x-wing-8c4-ccccc"),
        ("x-wing", "x-wing-7d9-bbbbb"),  # of a rollout either set; the first has no address
        ("x-wing-s", "x-wing-spare-5f6-ddddd"),
        ("x-wing-8", "x-wing-8c4-ccccc"),
        ("two", "two-0"),
        ("al", "alone"),
    ],
)
def test_one_is_meant(name: str, meant: str) -> None:
    assert pick(PODS, name)["metadata"]["name"] == meant


def test_several_are_named() -> None:
    with pytest.raises(LookupError, match=r"it could be of x-wing, x-wing-spare$"):
        pick(PODS, "x-w")


def test_nobody_is_meant() -> None:
    with pytest.raises(LookupError, match="no workload of that name"):
        pick(PODS, "tie-fighter")
