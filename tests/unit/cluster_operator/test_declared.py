"""Declared peers: what an object means, and what is said of one that means nothing."""

from typing import Any

import pytest

from cluster_operator.declared import Own, conditions, format_age, parse, plan, unchanged
from wire.k8s.cluster_mesh_peer import ClusterMeshPeerObject
from wire.k8s.meta import Condition, ObjectMeta

OWN = Own("paris", 1, 255)
GOOD: dict[str, Any] = {"clusterID": 2, "endpoints": ["192.0.2.1:32379"]}


def peer(name: str, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> ClusterMeshPeerObject:
    meta = ObjectMeta(name=name, creation_timestamp=created)
    return ClusterMeshPeerObject(metadata=meta, spec={**GOOD, **spec})


def test_a_good_object_is_a_connection() -> None:
    """The object's name is the cluster's unless another is given."""
    found = parse(peer("oslo", endpoints=["192.0.2.1:1", "[2001:db8::1]:1", "mesh.example:1"]), OWN)
    assert (found.name, found.id, found.port) == ("oslo", 2, 1)
    assert found.hosts == ("192.0.2.1", "2001:db8::1", "mesh.example")
    named = parse(peer("north", clusterName="oslo", secretRef={"name": "s"}, cacheTTL="10m"), OWN)
    assert (named.name, named.secret, named.cache_ttl) == ("oslo", "s", "10m")


@pytest.mark.parametrize(
    ("spec", "field", "remedy"),
    [
        ({"clusterName": "Oslo"}, "spec.clusterName: ", "use lower-case letters"),
        ({"clusterName": "default"}, "spec.clusterName: ", "name the other cluster"),
        ({"clusterName": "paris"}, "spec.clusterName: ", "name the other cluster"),
        ({"clusterID": 1}, "spec.clusterID: ", "give the other one its own"),
        ({"clusterID": 256}, "spec.clusterID: ", "use 1 to 255"),
        ({"clusterID": "two"}, "spec.clusterID", "correct it"),
        ({"endpoints": []}, "spec.endpoints: ", "name 1 to"),
        ({"endpoints": ["192.0.2.1"]}, "spec.endpoints: ", "is not HOST:PORT"),
        ({"endpoints": ["a:1", "b:2"]}, "spec.endpoints: ", "use one port for all"),
        ({"endpoints": 'a"\n- b:2'}, "spec.endpoints", "correct it"),
        ({"endpoints": ['a"\n- b:2']}, "spec.endpoints: ", "neither an IP address nor"),
        ({"cacheTTL": "soon"}, "spec.cacheTTL: ", "write it like 30s"),
        ({"secretRef": {}}, "spec.secretRef", "correct it"),
    ],
)
def test_a_bad_object_is_told_its_field_and_the_remedy(
    spec: dict[str, Any], field: str, remedy: str
) -> None:
    """One sentence; the objects beside it are as they were."""
    bad, good = peer("bad", **spec), peer("good", clusterID=7)
    found = plan([bad, good], OWN, {}, {})
    problem = found.problems["bad"]
    assert problem.reason == "Invalid"
    assert field in problem.message
    assert remedy in problem.message
    assert set(found.wanted) == {"good"}


def test_without_name_or_spec() -> None:
    """Not even a dictionary."""
    none = ClusterMeshPeerObject(metadata=ObjectMeta(name="x"), spec=None)
    assert plan([none], OWN, {}, {}).problems["x"].reason == "Invalid"
    assert "metadata.name" in plan([peer("x" * 40)], OWN, {}, {}).problems["x" * 40].message


def test_the_older_of_two_has_the_cluster() -> None:
    """In whatever order they come."""
    old = peer("b", "2026-01-01T00:00:00Z", clusterName="oslo")
    young = peer("a", "2026-01-02T00:00:00Z", clusterName="oslo")
    for order in ([old, young], [young, old]):
        found = plan(order, OWN, {}, {})
        assert set(found.wanted) == {"b"}
        assert found.problems["a"].reason == "Conflict"
        assert "older ClusterMeshPeer b" in found.problems["a"].message


def test_what_a_command_made_is_not_touched() -> None:
    """Neither taken over nor removed; its number is taken, too."""
    found = plan([peer("oslo"), peer("rome", clusterID=9)], OWN, {"oslo": 2, "bonn": 9}, {})
    assert not found.wanted
    assert found.gone == ()
    assert "connected by a command" in found.problems["oslo"].message
    assert "bonn" in found.problems["rome"].message


def test_what_an_object_made_goes_with_it() -> None:
    """Also when it means another cluster now; not when it merely became unusable."""
    connected = {"oslo": 2, "rome": 3, "bonn": 4}
    marks = {"oslo": "oslo", "rome": "south", "bonn": "bonn"}
    present = [peer("bonn", clusterID=0), peer("south", clusterName="athens", clusterID=5)]
    found = plan(present, OWN, connected, marks)
    assert found.gone == ("oslo", "rome")
    assert set(found.wanted) == {"south"}
    assert set(found.problems) == {"bonn"}


def test_another_object_takes_over() -> None:
    """A renamed object is no interruption."""
    found = plan([peer("north", clusterName="oslo")], OWN, {"oslo": 2}, {"oslo": "oslo"})
    assert found.gone == ()
    assert set(found.wanted) == {"north"}


def test_the_condition_keeps_its_time_while_its_status_stays() -> None:
    """And nothing is written when nothing is new."""
    problem = plan([peer("x", clusterID=1)], OWN, {}, {}).problems["x"]
    (first,) = conditions([], problem, 1, "T1")
    known = Condition(
        type="Ready",
        status="False",
        reason="Invalid",
        message=problem.message,
        observed_generation=1,
        last_transition_time="T1",
    )
    assert unchanged([known], [first])
    (second,) = conditions([known], problem, 2, "T2")
    assert (second["lastTransitionTime"], second["observedGeneration"]) == ("T1", 2)
    (third,) = conditions([known], None, 2, "T3")
    assert (third["status"], third["lastTransitionTime"]) == ("True", "T3")


def test_ages_are_short() -> None:
    """One unit."""
    assert [format_age(s) for s in (0, 59.4, 60, 3599, 7300)] == ["0s", "59s", "1m", "59m", "2h"]
