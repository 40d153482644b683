"""Namespaces are those of flows, for an hour, whoever's cluster they are."""

import pytest

from hubble import seen_namespaces
from hubble.names import Names
from hubble.ring import Lost, Ring, lost_record
from hubble.seen_namespaces import KEPT_NS, SeenNamespaces
from tests.unit.hubble.test_decode import drop, tcp, trace, verdict
from wire.names import EndpointLine, IdentityLine, Self

HOUR = KEPT_NS
SHOP, FAR, QUIET, LOCAL = 70001, 140001, 70002, 70003


def pod_labels(namespace: str, cluster: str) -> tuple[str, ...]:
    space = f"k8s:io.kubernetes.pod.namespace={namespace}"
    return space, f"k8s:io.cilium.k8s.policy.cluster={cluster}"


@pytest.fixture
def names() -> Names:
    found = Names()
    found.apply(Self("west", "n1"), 0)
    for number, namespace, cluster in (
        (SHOP, "shop", "west"),
        (FAR, "far", "east"),
        (QUIET, "quiet", "west"),
        (LOCAL, "local", "west"),
    ):
        found.apply(IdentityLine(id=number, labels=pod_labels(namespace, cluster)), 0)
    found.apply(EndpointLine(id=22, identity=LOCAL, namespace="local", pod="p"), 0)
    return found


def test_both_sides_of_traces_and_drops_and_what_is_judged(names: Names) -> None:
    ring = Ring(63)
    seen = SeenNamespaces(ring, names)
    ring.extend([(HOUR, trace(tcp(), source=SHOP, destination=FAR))])
    assert seen.get(HOUR) == [("east", "far"), ("west", "shop")]
    ring.extend([(2 * HOUR - 1, verdict(tcp())), (2 * HOUR - 1, lost_record(Lost(1, 0, 5)))])
    ring.extend([(2 * HOUR - 1, b"\x04 cut short"), (2 * HOUR - 1, drop(tcp()))])
    assert seen.get(2 * HOUR - 1) == [("east", "far"), ("west", "local"), ("west", "shop")]
    assert seen.get(2 * HOUR) == [("west", "local")]  # the others are an hour ago
    assert seen.get(3 * HOUR) == []


def test_a_look_is_bounded_and_begins_with_the_newest(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_namespaces, "RECORDS_MAX", 3)
    ring = Ring(63)
    seen = SeenNamespaces(ring, names)
    ring.extend([(1, trace(tcp(), source=QUIET, destination=0))])
    ring.extend([(2, trace(tcp(), source=SHOP, destination=0)) for _ in range(3)])
    assert seen.get(3) == [("west", "shop")]
