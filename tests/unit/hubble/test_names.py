"""Names at the time of an event, and an agent that comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubble.history import History
from hubble.names import Names, packed
from wire import names as wire
from wire.names import (
    EndpointLine,
    FrontendLine,
    IdentityLine,
    PrefixLine,
    RuleLine,
    Self,
    Synced,
    Workload,
)

POD = packed("10.1.0.10")


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([None, 1, 2, 3])), max_size=12),
    st.integers(0, 130),
)
def test_history_answers_as_a_list_of_all_changes_would(
    changes: list[tuple[str, int | None]], forgotten: int
) -> None:
    history: History[str, int] = History()
    told: dict[str, list[tuple[int, int | None]]] = {"a": [], "b": []}
    for number, (key, value) in enumerate(changes):
        history.put(key, value, 10 * number)
        told[key].append((10 * number, value))
    history.forget(forgotten)
    for key, steps in told.items():
        assert history.now(key) == (steps[-1][1] if steps else None)
        for at in range(max(forgotten, 0), 140):
            upto = [value for since, value in steps if since <= at]
            later = [value for since, value in steps if since > at]
            expected = upto[-1] if upto else None
            if expected is None:  # a value counts for the time before it was known
                expected = next((value for value in later if value is not None), None)
            assert history.get(key, at) == expected


def test_a_pod_is_what_it_was_when_the_packet_passed() -> None:
    names = Names()
    names.apply(EndpointLine(id=1, addresses=("10.1.0.10",), pod="old", identity=7), 100)
    names.apply(EndpointLine(id=1, gone=True), 200)
    names.apply(EndpointLine(id=2, addresses=("10.1.0.10",), pod="new", identity=8), 300)
    pods = [found.pod for at in (50, 150, 350) if (found := names.local(POD, at))]
    assert pods == ["old", "old", "new"]
    gap = names.local(POD, 250)
    assert gap is not None
    assert gap.pod == "new"
    names.forget(300)
    found = names.local(POD, 150)
    assert found is not None
    assert found.pod == "new"


def test_an_address_that_moves_to_another_endpoint_stays_with_it() -> None:
    """The old endpoint's end is told after the new one's beginning."""
    names = Names()
    names.apply(EndpointLine(id=1, addresses=("10.1.0.10",), pod="old"), 1)
    names.apply(EndpointLine(id=2, addresses=("10.1.0.10",), pod="new"), 2)
    names.apply(EndpointLine(id=1, gone=True), 3)
    found = names.local(POD, 4)
    assert found is not None
    assert found.pod == "new"


def test_what_a_new_agent_does_not_tell_again_is_gone_once_it_has_told_all() -> None:
    names = Names()
    lines = [
        EndpointLine(id=1, addresses=("10.1.0.10",), pod="a"),
        IdentityLine(id=70000, labels=("k8s:app=a",)),
        PrefixLine(prefix="10.2.0.1/32", identity=70000, pod="b"),
        PrefixLine(prefix="10.3.0.0/16", identity=5),
        FrontendLine(address="10.96.0.1", port=443, protocol=6, name="kubernetes"),
        RuleLine(number=3, name="allow"),
    ]
    for line in [*lines, Synced()]:
        names.apply(line, 1)
    names.begin()
    names.apply(lines[1], 10)
    assert names.local(POD, 10) is not None
    names.apply(Synced(), 20)
    assert names.identity(70000, 30).labels == ("k8s:app=a",)
    assert names.local(POD, 30) is None
    assert names.endpoint(1, 30) is None
    assert names.known(packed("10.2.0.1"), 30) is None
    assert names.known(packed("10.3.0.1"), 30) is None
    assert names.service(packed("10.96.0.1"), 443, 6, 30) is None
    assert names.rule(3, 30) is None
    assert names.local(POD, 5) is not None


def test_the_longest_prefix_says_whose_an_address_is() -> None:
    names = Names()
    for prefix, identity in (("10.0.0.0/8", 1), ("10.2.0.0/16", 2), ("10.2.0.7/32", 3)):
        names.apply(PrefixLine(prefix=prefix, identity=identity), 1)
    names.apply(PrefixLine(prefix="fd00::/16", identity=4), 1)
    found = [
        known.identity if (known := names.known(packed(text), 2)) else None
        for text in ("10.9.9.9", "10.2.9.9", "10.2.0.7", "fd00:1::1", "203.0.113.1", "fe80::1")
    ]
    assert found == [1, 2, 3, 4, None, None]


def test_labels_name_the_cluster_and_of_several_cidrs_the_longest_is_shown() -> None:
    names = Names()
    names.apply(
        IdentityLine(id=7, labels=("k8s:io.cilium.k8s.policy.cluster=west", "k8s:app=x")), 1
    )
    assert names.identity(7, 1) == (("k8s:app=x", "k8s:io.cilium.k8s.policy.cluster=west"), "west")
    cidrs = ("cidr:10.0.0.0/8", "cidr:10.2.0.0/16", "cidr:0.0.0.0/0", "reserved:world")
    names.apply(IdentityLine(id=1 << 24, labels=cidrs), 1)
    assert names.identity(1 << 24, 1).labels == ("cidr:10.2.0.0/16", "reserved:world")
    assert names.identity(2, 1).labels == ("reserved:world",)
    assert names.identity(99999, 1).labels == ()


@pytest.mark.parametrize(
    "line",
    [
        Self("c1", "node-1", ("a=b",)),
        EndpointLine(id=3, addresses=("10.1.0.3",), workload=Workload("web", "Deployment")),
        EndpointLine(id=3, gone=True),
        IdentityLine(id=70000, labels=("k8s:a=b",)),
        PrefixLine(prefix="10.2.0.1/32", identity=9, namespace="n", pod="p", host="192.0.2.1"),
        FrontendLine(address="10.96.0.1", port=443, protocol=6, namespace="default", name="k"),
        RuleLine(number=5, policy="NetworkPolicy", namespace="n", name="p", labels=("x",)),
        Synced(),
    ],
)
def test_lines_survive_the_wire(line: wire.Line) -> None:
    encoded = wire.encode(line)
    assert encoded.count(b"\n") == 1
    assert list(wire.decode(encoded)) == [line]


def test_lines_of_a_later_version_are_passed_over_and_rubbish_is_not() -> None:
    later = b'{"kind":"weather","sky":"blue"}\n'
    more = b'{"kind":"synced","extra":1}\n'
    assert list(wire.decode(later + more)) == [Synced()]
    with pytest.raises(ValueError, match="JSON"):
        list(wire.decode(b"GET / HTTP/1.1\n"))
