"""Which node a pod gets, and small rules of the controllers."""

from ipaddress import ip_network
from typing import Any

import pytest

from kind.controllers import daemonsets, jobs, nodes, placement, replicasets
from kind.controllers.owned import percent, safe_hash


def node(name: str, *taints: Any, ready: bool = True, **labels: str) -> Any:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def pod(name: str = "p", **spec: Any) -> Any:
    return {"metadata": {"name": name, "namespace": "n", "labels": {"app": name}}, "spec": spec}


TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "claim"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k", "value": "v", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration: Any, claim: bool) -> None:
    """Kubernetes' rules of matching taints."""
    assert placement.tolerates([toleration], TAINT) is claim


def test_choice() -> None:
    """Fewest pods of the same owner, then fewest pods, then the name."""
    both = [node("a"), node("b")]
    assert placement.choose(pod(), both, []).node == "a"
    assert placement.choose(pod(), both, [(pod("x"), "a")]).node == "b"
    owner = {"metadata": {"ownerReferences": [{"uid": "u", "controller": True}]}, "spec": {}}
    mine = {"metadata": owner["metadata"] | {"name": "m", "namespace": "n"}, "spec": {}}
    crowded = [(pod("x"), "a"), (pod("y"), "a"), (owner, "b")]
    assert placement.choose(mine, both, crowded).node == "a"


def test_refusals_are_counted() -> None:
    """The message says of how many nodes, and why."""
    found = placement.choose(
        pod(nodeSelector={"disk": "fast"}),
        [node("a", TAINT), node("b", ready=False), node("c"), node("d")],
        [],
    )
    assert found.node == ""
    assert found.message == (
        "0/4 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {k: v}, "
        "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    )


def test_node_affinity() -> None:
    """Terms are alternatives, expressions of a term must all hold."""

    def fits(*expressions: Any) -> bool:
        term = [{"matchExpressions": list(expressions)}]
        key = "requiredDuringSchedulingIgnoredDuringExecution"
        affinity = {"nodeAffinity": {key: {"nodeSelectorTerms": term}}}
        return placement.wants_node({"affinity": affinity}, node("a", zone="1", size="5"))

    assert fits({"key": "zone", "operator": "In", "values": ["1", "2"]})
    assert not fits({"key": "zone", "operator": "NotIn", "values": ["1"]})
    assert fits({"key": "zone", "operator": "Exists"}, {"key": "x", "operator": "DoesNotExist"})
    assert fits({"key": "size", "operator": "Gt", "values": ["4"]})
    assert not fits({"key": "size", "operator": "Lt", "values": ["4"]})
    assert not fits()


def test_surplus_pods() -> None:
    """Pods that do not work go before those that do, young ones before old ones."""

    def made(name: str, age: str, ready: bool, at: str = "n1") -> Any:
        found = pod(name, nodeName=at)
        found["metadata"]["creationTimestamp"] = age
        found["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        }
        return found

    pods = [
        made("old", "1", True),
        made("young", "3", True),
        made("ill", "2", False),
        made("waits", "1", False, ""),
    ]
    gone = replicasets.surplus(pods, 1)
    assert [p["metadata"]["name"] for p in gone] == ["waits", "ill", "young"]
    assert replicasets.surplus(pods, 9) == []


def test_daemon_pods_are_replaced_one_by_one() -> None:
    """Broken pods of an old template at once, healthy ones within maxUnavailable."""
    owner: Any = {"spec": {"updateStrategy": {"type": "RollingUpdate"}}}

    def made(name: str, ready: bool, word: str) -> Any:
        found = pod(name)
        found["metadata"]["labels"] = {daemonsets.HASH_LABEL: word}
        found["status"] = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        return found

    healthy = [made(n, True, "old") for n in "abc"]
    assert len(daemonsets.outdated(owner, healthy, "new")) == 1
    broken = [made("x", False, "old"), *healthy]
    assert [p["metadata"]["name"] for p in daemonsets.outdated(owner, broken, "new")] == ["x"]
    assert daemonsets.outdated(owner, healthy, "old") == []
    owner["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert daemonsets.outdated(owner, broken, "new") == []


def test_job_rules() -> None:
    """How many pods a job starts, and when it has ended."""
    job: Any = {"spec": {"completions": 5, "parallelism": 2, "backoffLimit": 1}}
    assert jobs.missing(job, 0, 0) == 2
    assert jobs.missing(job, 1, 4) == 0
    assert jobs.missing(job, 0, 5) == 0
    assert jobs.verdict(job, 5, 0, 0)[0] == "Complete"
    assert jobs.verdict(job, 4, 1, 1) == ("", "")
    assert jobs.verdict(job, 0, 2, 0) == ("Failed", "BackoffLimitExceeded")
    queue: Any = {"spec": {"parallelism": 3}}
    assert jobs.missing(queue, 1, 0) == 2
    assert jobs.missing(queue, 1, 1) == 0
    assert jobs.verdict(queue, 1, 0, 1)[0] == ""
    assert jobs.verdict(queue, 1, 0, 0)[0] == "Complete"


def test_node_prefixes() -> None:
    """The first free /24, never one that overlaps another; none when the range is used up."""
    cluster = ip_network("10.1.0.0/23")
    assert str(nodes.free_prefix(cluster, ["10.1.0.0/25"])) == "10.1.1.0/24"
    assert nodes.free_prefix(cluster, ["10.1.0.0/24", "10.1.1.7/32"]) is None
    assert str(nodes.free_prefix(ip_network("fd00::/64"), [])) == "fd00::/80"


def test_small_helpers() -> None:
    """Percentages round as they are told; hashes do not depend on the order of keys."""
    assert (percent("25%", 3, up=True), percent("25%", 3, up=False), percent(2, 9, up=True)) == (
        1,
        0,
        2,
    )
    assert safe_hash({"a": 1, "b": 2}) == safe_hash({"b": 2, "a": 1})
    assert safe_hash({"a": 1}) != safe_hash({"a": 2})
