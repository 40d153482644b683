"""What stops clusters from being joined: one sentence each, with the object and the remedy."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from cli import mesh_checks
from cli.mesh_facts import ClusterFacts
from model.address import parse_prefix

NOW = datetime(2026, 11, 21, tzinfo=UTC)
OWN_CA, OTHER_CA = create_ca(NOW), create_ca(NOW)


def certificate(authority: KeyPair, name: str, trust: bytes, when: datetime = NOW) -> Any:
    return issue(authority, mesh_profiles("x")[name], when).secret_data(trust)


SERVER = certificate(OWN_CA, SERVER_SECRET, OWN_CA.certificate)
CLIENT = certificate(OWN_CA, REMOTE_SECRET, OWN_CA.certificate)


def facts(name: str, number: int, **changed: Any) -> ClusterFacts:
    """A cluster that can be joined to others."""
    good = ClusterFacts(
        context=f"kind-{name}",
        namespace="kube-system",
        name=name,
        id=number,
        max_connected=255,
        tunnel="vxlan",
        pod_cidrs=(parse_prefix(f"10.{number}.0.0/16"),),
        ca=OWN_CA.certificate,
        addresses=(f"192.0.2.{number % 250}",),
        enabled=True,
        service_type="NodePort",
        server=SERVER,
        client=CLIENT,
    )
    return replace(good, **changed)


def test_good_clusters_may_be_joined() -> None:
    """Clusters that differ where they must give no problem."""
    assert mesh_checks.together([facts("a", 1), facts("b", 2), facts("c", 255)], NOW) == []


@pytest.mark.parametrize(
    ("changed", "named", "remedy"),
    [
        ({"name": "a" * 33}, "a" * 33, "at most 32"),
        ({"name": "Paris"}, '"Paris"', "lower-case"),
        ({"name": "default"}, '"default"', "--cluster-name"),
        ({"id": 0}, "ID 0", "its own ID from 1"),
        ({"id": 256}, "ID 256", "1 to 255"),
        ({"enabled": False}, "clustermesh-apiserver", "isthmus clustermesh enable"),
        ({"addresses": ()}, "clustermesh-apiserver", "-endpoint"),
        ({"ca": b""}, "kube-system/cilium-ca", "isthmus clustermesh enable"),
    ],
)
def test_one_cluster_alone(changed: dict[str, Any], named: str, remedy: str) -> None:
    """Each mistake is one sentence with context, object and remedy."""
    problems = mesh_checks.together([replace(facts("a", 1), **changed), facts("b", 2)], NOW)
    assert len(problems) == 1
    assert "context kind-a" in str(problems[0])
    assert named in str(problems[0])
    assert remedy in str(problems[0])


@pytest.mark.parametrize("which", ["server", "client"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda name, trust: certificate(OTHER_CA, name, trust), "does not hold"),
        (
            lambda name, trust: certificate(OWN_CA, name, trust, NOW - timedelta(days=2000)),
            "expired on 2024-05-30: issue it anew: run `isthmus clustermesh enable`",
        ),
        (
            lambda name, trust: certificate(OWN_CA, name, trust, NOW + timedelta(days=3)),
            "not valid before",
        ),
        (lambda name, trust: {"ca.crt": trust, "tls.crt": b"no certificate"}, "not a PEM"),
    ],
)
def test_unusable_certificates(which: str, make: Callable[[str, bytes], Any], why: str) -> None:
    """Foreign, expired, early and broken certificates are told with the Secret that holds them."""
    name = SERVER_SECRET if which == "server" else REMOTE_SECRET
    bad = replace(facts("a", 1), **{which: make(name, OWN_CA.certificate)})
    problems = mesh_checks.together([bad, facts("b", 2)], NOW)
    assert len(problems) == 1
    assert f"Secret kube-system/{name}" in str(problems[0])
    assert why in str(problems[0])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "a"}, ("named a", "--cluster-name")),
        ({"id": 1}, ("a and b both have ID 1", "--cluster-id")),
        ({"max_connected": 511}, ("255 and 511", "set both to the same")),
        ({"tunnel": "geneve"}, ("'vxlan' and 'geneve'", "set both to the same")),
        (
            {"pod_cidrs": (parse_prefix("10.9.0.0/24"), parse_prefix("10.1.128.0/17"))},
            ("10.1.0.0/16 and 10.1.128.0/17 overlap", "other pod CIDRs"),
        ),
    ],
)
def test_two_clusters_that_exclude_each_other(
    changed: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Each conflict is one sentence that names both clusters, the value and the remedy."""
    problems = mesh_checks.together([facts("a", 1), replace(facts("b", 2), **changed)], NOW)
    assert len(problems) == 1
    assert all(word in str(problems[0]) for word in words)


def test_prefixes_of_different_families_do_not_overlap() -> None:
    """An IPv4 and an IPv6 prefix are never compared."""
    six = (parse_prefix("::/0"),)
    assert mesh_checks.together([facts("a", 1), facts("b", 2, pod_cidrs=six)], NOW) == []


@pytest.mark.parametrize("side", [0, 1])
def test_number_of_a_third_cluster(side: int) -> None:
    """An ID that a connected third cluster has is refused, whichever side is connected to it."""
    pair = [facts("a", 1), facts("b", 2)]
    taken = pair[1 - side].id
    pair[side] = replace(pair[side], connected={"oslo": taken})
    problems = mesh_checks.together(pair, NOW)
    assert len(problems) == 1
    assert f"has ID {taken}, as has oslo" in str(problems[0])


def test_name_of_another_connected_cluster() -> None:
    """A name that stands for a cluster of another ID is not overwritten silently."""
    problems = mesh_checks.together([facts("a", 1, connected={"b": 7}), facts("b", 2)], NOW)
    assert len(problems) == 1
    assert "already connected to a cluster b with ID 7" in str(problems[0])
    assert "disconnect" in str(problems[0])


def test_connecting_again_is_allowed() -> None:
    """The same pair may be connected again, and a connection of unknown ID stops nobody."""
    pair = [facts("a", 1, connected={"b": 2, "oslo": 0}), facts("b", 2, connected={"a": 1})]
    assert mesh_checks.together(pair, NOW) == []


def test_every_problem_is_told_at_once() -> None:
    """A person mends everything before the next try."""
    bad = facts("b", 1, tunnel="geneve", pod_cidrs=(parse_prefix("10.1.0.0/20"),), enabled=False)
    assert len(mesh_checks.together([facts("a", 1), bad], NOW)) == 4
