"""Defaults, validation, allocation, and what updates may change."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kind.apiserver.allocate import Taken, allocate
from kind.apiserver.defaults import apply_defaults
from kind.apiserver.errors import ApiError
from kind.apiserver.patch import deep_copy
from kind.apiserver.resources import BUILTIN
from kind.apiserver.strategy import Stamp, prepare_create, prepare_update, qos_class
from kind.apiserver.validate import validate
from tests.support.kind_apiserver import deployment, pod, service

BY_TABLE = {r.table: r for r in BUILTIN}
STAMP = Stamp("2026-01-01T00:00:00Z", "uid-1", "bcdfg")


def created(table: str, obj: Any) -> Any:
    prepare_create(BY_TABLE[table], obj, STAMP)
    return obj


def test_pod_defaults() -> None:
    """A pod gets what clients read: policies, account, protocol, tolerations, phase."""
    found = created("core/pods", pod("p", "n"))
    spec = found["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"], spec["serviceAccountName"]) == (
        "Always",
        "ClusterFirst",
        "default",
    )
    assert spec["containers"][0]["ports"][0]["protocol"] == "TCP"
    assert {t["key"] for t in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }
    assert found["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert found["metadata"]["uid"] == "uid-1"
    tolerant = pod("p", "n")
    tolerant["spec"]["tolerations"] = [{"operator": "Exists"}]
    assert len(created("core/pods", tolerant)["spec"]["tolerations"]) == 1


def test_defaults_are_stable() -> None:
    """Filling defaults a second time changes nothing."""
    for table, obj in (
        ("core/pods", pod("p", "n")),
        ("core/services", service("s", "n", {}, sessionAffinity="ClientIP")),
        ("apps/deployments", deployment("d", "n", 1)),
    ):
        apply_defaults(table, obj)
        once = deep_copy(obj)
        apply_defaults(table, obj)
        assert obj == once


def test_secret_strings_become_data() -> None:
    """stringData is merged into data and not kept."""
    secret: Any = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    found = created("core/secrets", secret)
    assert found["data"] == {"a": "Yg==", "c": "ZA=="}
    assert "stringData" not in found


def test_generated_names() -> None:
    """generateName makes a name that fits; without either there is an error."""
    found = created("core/configmaps", {"metadata": {"generateName": "x" * 70}})
    assert found["metadata"]["name"] == "x" * 58 + "bcdfg"
    with pytest.raises(ApiError, match="resourceVersion should not be set"):
        created("core/configmaps", {"metadata": {"name": "x", "resourceVersion": "1"}})


@pytest.mark.parametrize(
    ("table", "change", "field"),
    [
        ("core/pods", {"metadata.labels": {"a b": "c"}}, "metadata.labels"),
        ("core/pods", {"metadata.labels": {"a": "-"}}, "metadata.labels"),
        ("core/pods", {"metadata.labels": {"a": 1}}, "metadata.labels.a"),
        ("core/pods", {"metadata.annotations": {"/x": "c"}}, "metadata.annotations"),
        ("core/pods", {"spec.containers": []}, "spec.containers"),
        ("core/pods", {"spec.restartPolicy": "Often"}, "spec.restartPolicy"),
        ("core/services", {"metadata.name": "1s"}, "metadata.name"),
        ("core/services", {"spec.ports": []}, "spec.ports"),
        ("core/services", {"spec.type": "Wide"}, "spec.type"),
        ("core/services", {"spec.sessionAffinity": "X"}, "spec.sessionAffinity"),
        ("apps/deployments", {"spec.replicas": -1}, "spec.replicas"),
        ("apps/deployments", {"spec.selector": {}}, "spec.selector"),
        (
            "apps/deployments",
            {"spec.selector": {"matchLabels": {"other": "x"}}},
            "spec.template.metadata.labels",
        ),
    ],
)
def test_invalid_objects(table: str, change: dict[str, Any], field: str) -> None:
    """Each mistake is told with exactly its field."""
    obj = {
        "core/pods": pod("p", "n"),
        "core/services": service("s", "n", {}),
        "apps/deployments": deployment("d", "n", 1),
    }[table]
    for path, value in change.items():
        place: Any = obj
        *steps, last = path.split(".")
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    apply_defaults(table, obj)
    assert [c.field for c in validate(table, obj)] == [field]


def test_ports_of_a_service_need_names() -> None:
    """Several ports without names, or the same port twice, are refused."""
    obj = service("s", "n", {})
    obj["spec"]["ports"] *= 2
    apply_defaults("core/services", obj)
    fields = {c.field for c in validate("core/services", obj)}
    assert fields == {"spec.ports[0].name", "spec.ports[1].name", "spec.ports[1]"}


def test_pod_updates() -> None:
    """Of a pod's spec only the image and few other fields may change."""
    old = created("core/pods", pod("p", "n"))
    new = deep_copy(old)
    new["spec"]["containers"][0]["image"] = "other:2"
    stored, _ = prepare_update(BY_TABLE["core/pods"], new, old)
    assert stored["spec"]["containers"][0]["image"] == "other:2"
    new = deep_copy(old)
    new["spec"]["containers"][0]["command"] = ["x"]
    with pytest.raises(ApiError, match="pod updates may not change fields"):
        prepare_update(BY_TABLE["core/pods"], new, old)


def test_server_owned_metadata() -> None:
    """A client can change neither UID nor times; another UID is a conflict."""
    old = created("core/pods", pod("p", "n"))
    new = deep_copy(old)
    new["metadata"] |= {"creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "x"}
    stored, _ = prepare_update(BY_TABLE["core/pods"], new, old)
    assert stored["metadata"] == old["metadata"]
    new["metadata"]["uid"] = "other"
    with pytest.raises(ApiError, match="Precondition failed: UID"):
        prepare_update(BY_TABLE["core/pods"], new, old)


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Mi"}}, "Guaranteed"),
    ],
)
def test_qos(resources: Any, word: str) -> None:
    """The class by what the containers state."""
    assert qos_class({"spec": {"containers": [{"resources": resources}]}}) == word


def test_allocation_never_gives_twice() -> None:
    """Every address of a small range is given once, then the range is full."""
    networks, taken = [ip_network("10.0.0.0/29")], Taken([])
    given = []
    for start in (7, 7, 7, 7, 7):
        obj: Any = {"spec": {}}
        assert allocate(obj, networks, taken, start) == []
        taken.add(obj)
        given.append(obj["spec"]["clusterIP"])
    assert len(set(given)) == 5
    assert not {"10.0.0.0", "10.0.0.7"} & set(given)
    (cause,) = allocate({"spec": {}}, networks, taken, 0)
    assert "range is full" in cause.message


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("10.0.0.9", "already allocated"),
        ("10.1.0.1", "not in the valid range"),
        ("no address", "no IP address"),
    ],
)
def test_asked_addresses(asked: str, why: str) -> None:
    """A requested address is refused with its reason."""
    taken = Taken([{"spec": {"clusterIPs": ["10.0.0.9"]}}])
    (cause,) = allocate({"spec": {"clusterIP": asked}}, [ip_network("10.0.0.0/24")], taken, 0)
    assert why in cause.message


BOTH = [ip_network("10.0.0.0/24"), ip_network("fd00::/112")]


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        ({}, [4]),
        ({"ipFamilyPolicy": "SingleStack"}, [4]),
        ({"ipFamilyPolicy": "PreferDualStack"}, [4, 6]),
        ({"ipFamilyPolicy": "RequireDualStack"}, [4, 6]),
        ({"ipFamilies": ["IPv6"]}, [6]),
        ({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack"}, [6, 4]),
        ({"ipFamilies": ["IPv6", "IPv4"]}, [6, 4]),
        ({"clusterIP": "fd00::77"}, [6]),
        ({"clusterIPs": ["10.0.0.77", "fd00::77"]}, [4, 6]),
        ({"clusterIPs": ["10.0.0.9", "fd00::9"], "ipFamilyPolicy": "SingleStack"}, [4]),
    ],
)
def test_families_of_services(spec: dict[str, Any], families: list[int]) -> None:
    """Addresses are given in the order of families; what was asked for is kept."""
    obj: Any = {"spec": dict(spec)}
    assert allocate(obj, BOTH, Taken([]), 5) == []
    made = obj["spec"]
    assert [ip_address(text).version for text in made["clusterIPs"]] == families
    assert made["clusterIP"] == made["clusterIPs"][0]
    assert made["ipFamilies"] == [f"IPv{version}" for version in families]
    asked = spec.get("clusterIPs", [])[: len(families)]
    assert made["clusterIPs"][: len(asked)] == asked
    assert (made["ipFamilyPolicy"] == "SingleStack") == (len(families) == 1)


def test_a_service_gains_and_loses_a_family() -> None:
    """Its first address stays."""
    obj: Any = {"spec": {}}
    assert allocate(obj, BOTH, Taken([]), 5) == []
    first = obj["spec"]["clusterIP"]
    obj["spec"]["ipFamilyPolicy"] = "PreferDualStack"
    assert allocate(obj, BOTH, Taken([]), 5) == []
    assert (obj["spec"]["clusterIPs"][0], len(obj["spec"]["clusterIPs"])) == (first, 2)
    obj["spec"]["ipFamilyPolicy"] = "SingleStack"
    assert allocate(obj, BOTH, Taken([]), 5) == []
    assert obj["spec"]["clusterIPs"] == [first]


@pytest.mark.parametrize(
    ("spec", "networks", "field", "word"),
    [
        ({"ipFamilyPolicy": "RequireDualStack"}, 1, "spec.ipFamilyPolicy", "not configured"),
        ({"ipFamilies": ["IPv6"]}, 1, "spec.ipFamilies[0]", "not configured"),
        ({"clusterIP": "fd00::1", "ipFamilies": ["IPv4"]}, 2, "spec.clusterIPs[0]", "IPv4"),
        ({"clusterIPs": ["10.0.0.9", "fd00:1::9"]}, 2, "spec.clusterIPs", "valid range"),
    ],
)
def test_families_that_cannot_be(
    spec: dict[str, Any], networks: int, field: str, word: str
) -> None:
    """Refused with the field and the reason."""
    (cause,) = allocate({"spec": dict(spec)}, BOTH[:networks], Taken([]), 0)
    assert cause.field == field
    assert word in cause.message


def test_headless_services_are_of_families_too() -> None:
    """Without a selector of all the cluster has: somebody else writes their endpoints."""
    obj: Any = {"spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    assert allocate(obj, BOTH, Taken([]), 0) == []
    assert obj["spec"]["ipFamilies"] == ["IPv4"]
    obj = {"spec": {"clusterIP": "None"}}
    assert allocate(obj, BOTH, Taken([]), 0) == []
    assert obj["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert obj["spec"]["clusterIPs"] == ["None"]


def test_node_ports_by_protocol() -> None:
    """The same number can be used by TCP and UDP, not twice by TCP."""
    ports = [{"port": 1, "protocol": "TCP", "nodePort": 30100}]
    taken = Taken([{"spec": {"ports": ports}}])
    networks = [ip_network("10.0.0.0/24")]
    udp: Any = {"spec": {"type": "NodePort", "ports": [ports[0] | {"protocol": "UDP"}]}}
    assert allocate(udp, networks, taken, 0) == []
    tcp: Any = {"spec": {"type": "NodePort", "ports": [dict(ports[0])]}}
    assert "already allocated" in allocate(tcp, networks, taken, 0)[0].message
    outside: Any = {"spec": {"type": "NodePort", "ports": [ports[0] | {"nodePort": 80}]}}
    assert "30000-32767" in allocate(outside, networks, taken, 0)[0].message
