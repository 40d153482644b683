"""One import of many clusters' exports: who decides, which ports there are, what is in conflict."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.exports import merge
from model.cluster import ClusterName
from model.service import Protocol, ServiceName
from model.service_export import ExportedPort, ExportType, ServiceExport, SessionAffinity

NAME = ServiceName("web", "shop")
START = datetime(2026, 3, 4, tzinfo=UTC)
HTTP = ExportedPort(80, Protocol.TCP, "http")
HTTPS = ExportedPort(443, Protocol.TCP, "https")


def export(cluster: str, age: int = 0, **fields: Any) -> ServiceExport:
    """``age``: seconds; the higher, the older."""
    made = {"ports": (HTTP,)} | fields
    return ServiceExport(ClusterName(cluster), NAME, START - timedelta(seconds=age), **made)


def test_nothing_of_nothing() -> None:
    """Without an export there is no import."""
    assert merge([]) is None


def test_the_oldest_decides_and_the_name_between_equals() -> None:
    """All but the ports are of one cluster."""
    old = export("c", 5, type=ExportType.HEADLESS, labels={"a": "1"}, annotations={"b": "2"})
    new = export("a", 1, affinity=SessionAffinity.CLIENT_IP, affinity_timeout_s=5)
    merged = merge([new, old])
    assert merged is not None
    assert (merged.type, merged.affinity) == (ExportType.HEADLESS, SessionAffinity.NONE)
    assert (merged.labels, merged.annotations) == ({"a": "1"}, {"b": "2"})
    assert merged.clusters == ("a", "c")
    tie = merge([export("b", labels={"x": "b"}), export("a", labels={"x": "a"})])
    assert tie is not None
    assert tie.labels == {"x": "a"}


def test_ports_are_the_union() -> None:
    """In order of precedence, and no conflict."""
    merged = merge([export("a", 1, ports=(HTTPS,)), export("b", 2)])
    assert merged is not None
    assert merged.ports == (HTTP, HTTPS)
    assert merged.conflict is None


def test_a_single_port_without_name_gets_one_among_others() -> None:
    """A Service of several ports needs a name for each."""
    plain = ExportedPort(80, Protocol.TCP)
    alone = merge([export("a", ports=(plain,))])
    both = merge([export("a", 1, ports=(plain,)), export("b", ports=(HTTPS,))])
    assert alone is not None
    assert alone.ports == (plain,)
    assert both is not None
    assert [p.name for p in both.ports] == ["tcp-80", "https"]


CONFLICTS = [
    (
        "PortConflict",
        {},
        {"ports": (ExportedPort(81, Protocol.TCP, "http"),)},
        'Port name "http" is of 80/TCP in cluster "old" and of 81/TCP in cluster "new"',
    ),
    (
        "PortConflict",
        {},
        {"ports": (ExportedPort(80, Protocol.TCP, "web"),)},
        "Conflicting name of port 80/TCP. 1/2 clusters disagree. "
        'Using "http" from oldest service export in cluster "old".',
    ),
    (
        "PortConflict",
        {},
        {"ports": (ExportedPort(80, Protocol.TCP, "http", "grpc"),)},
        "Conflicting appProtocol of port 80/TCP. 1/2",
    ),
    (
        "TypeConflict",
        {},
        {"type": ExportType.HEADLESS},
        'Conflicting type. 1/2 clusters disagree. Using "ClusterSetIP"',
    ),
    (
        "SessionAffinityConflict",
        {},
        {"affinity": SessionAffinity.CLIENT_IP},
        'sessionAffinity. 1/2 clusters disagree. Using "None"',
    ),
    (
        "SessionAffinityConfigConflict",
        {"affinity": SessionAffinity.CLIENT_IP, "affinity_timeout_s": 30},
        {"affinity": SessionAffinity.CLIENT_IP, "affinity_timeout_s": 65},
        'Using "30" from',
    ),
    ("AnnotationsConflict", {}, {"annotations": {"a": "b"}}, "exportedAnnotations"),
    ("LabelsConflict", {}, {"labels": {"a": "b"}}, "exportedLabels"),
]


@pytest.mark.parametrize(("reason", "older", "newer", "message"), CONFLICTS)
def test_each_disagreement_is_told(
    reason: str, older: dict[str, Any], newer: dict[str, Any], message: str
) -> None:
    """By its reason and a sentence that says whose word counts."""
    merged = merge([export("new", 0, **newer), export("old", 9, **older)])
    assert merged is not None
    assert merged.conflict is not None
    assert merged.conflict.reason == reason
    assert message in merged.conflict.message
    agreed = merge([export("new", 0, **older), export("old", 9, **older)])
    assert agreed is not None
    assert agreed.conflict is None


def test_ports_come_before_type_and_those_who_disagree_are_counted() -> None:
    """Only the first conflict is told."""
    web = ExportedPort(80, Protocol.TCP, "web")
    merged = merge(
        [
            export("a", 9),
            export("b", 8, ports=(web,), type=ExportType.HEADLESS),
            export("c", 7, ports=(web,)),
        ]
    )
    assert merged is not None
    assert merged.conflict is not None
    assert merged.conflict.reason == "PortConflict"
    assert "2/3 clusters disagree" in merged.conflict.message


PORTS = st.builds(
    ExportedPort,
    st.integers(1, 4),
    st.sampled_from([Protocol.TCP, Protocol.UDP]),
    st.sampled_from(["", "a", "b", "tcp-1"]),
)
EXPORTS = st.lists(
    st.builds(
        export,
        st.sampled_from("abcde"),
        st.integers(0, 2),
        ports=st.lists(PORTS, max_size=4, unique_by=lambda p: (p.port, p.protocol)).map(tuple),
        type=st.sampled_from(ExportType),
        labels=st.sampled_from([{}, {"x": "y"}]),
    ),
    max_size=5,
    unique_by=lambda e: e.cluster,
)


@given(EXPORTS, st.randoms(use_true_random=False))
def test_every_cluster_comes_to_the_same(exports: list[ServiceExport], random: Any) -> None:
    """In whatever order exports are heard, and the result is a Service that an API server takes."""
    merged = merge(exports)
    random.shuffle(exports)
    assert merge(exports) == merged
    if merged is None:
        return
    assert len({(p.port, p.protocol) for p in merged.ports}) == len(merged.ports)
    if len(merged.ports) > 1:
        names = [p.name for p in merged.ports]
        assert all(names)
        assert len(set(names)) == len(names)
    offered = {(p.port, p.protocol) for e in exports for p in e.ports}
    lost = offered - {(p.port, p.protocol) for p in merged.ports}
    assert not lost or (merged.conflict and merged.conflict.reason == "PortConflict")


@given(EXPORTS)
def test_without_disagreement_there_is_no_conflict(exports: list[ServiceExport]) -> None:
    """One export alone never disagrees with itself."""
    for one in exports:
        names = [p.name for p in one.ports if p.name]
        merged = merge([one])
        assert merged is not None
        assert (merged.conflict is None) == (len(set(names)) == len(names))
