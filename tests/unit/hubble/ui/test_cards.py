"""Cards and links as the UI has them."""

import pytest

from hubble.ui import cards
from hubble.ui.cards import Cards, is_shown
from tests.support.hubble import flow
from wire.hubble import flow_pb2 as f
from wire.hubble import ui_pb2 as ui

CART = {"identity": 21001, "namespace": "shop", "pod_name": "cart-1", "labels": ["k8s:app=cart"]}
PAY = {"identity": 21002, "namespace": "shop", "pod_name": "pay-1", "labels": ["k8s:name=pay"]}
TCP = {"TCP": {"source_port": 41000, "destination_port": 80}}
CHANGE = ui.StateChange


def talk(**fields: object) -> f.Flow:
    return flow(1, **{"source": CART, "destination": PAY, "l4": TCP, **fields})


def test_a_card_is_an_identity_and_a_link_a_port() -> None:
    """Told once; the name is that of the application."""
    told = Cards()
    services, links = told.take([talk(), talk()])
    assert [(s.type, s.service.id, s.service.name) for s in services] == [
        (CHANGE.ADDED, "21001", "cart"),
        (CHANGE.ADDED, "21002", "pay"),
    ]
    assert services[0].service.namespace == "shop"
    assert services[0].service.identity == 21001
    assert list(services[0].service.labels) == ["k8s:app=cart"]
    (link,) = links
    assert (link.type, link.service_link.id) == (CHANGE.ADDED, "21001 TCP 21002:80")
    assert (link.service_link.source_id, link.service_link.destination_id) == ("21001", "21002")
    assert link.service_link.verdict == f.Verdict.FORWARDED
    assert told.take([talk()]) == ([], [])


def test_a_new_workload_and_a_new_verdict_are_changes() -> None:
    """The newest verdict counts; a card keeps the workloads it had."""
    told = Cards()
    one = {**CART, "workloads": [{"kind": "Deployment", "name": "cart"}]}
    two = {**CART, "workloads": [{"kind": "CronJob", "name": "cart"}]}
    told.take([talk(source=one)])
    services, links = told.take([talk(source=two), talk(verdict="DROPPED"), talk()])
    (service,) = services
    assert service.type == CHANGE.MODIFIED
    names = [(w.kind, w.name) for w in service.service.workloads]
    assert names == [("CronJob", "cart"), ("Deployment", "cart")]
    assert [x.service_link.verdict for x in links] == [f.Verdict.FORWARDED]
    _, links = told.take([talk(verdict="DROPPED", IP={"encrypted": True})])
    (link,) = links
    assert (link.type, link.service_link.verdict) == (CHANGE.MODIFIED, f.Verdict.DROPPED)
    assert link.service_link.is_encrypted


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"destination": {"identity": 2, "labels": ["reserved:world"]}},
            "21001 TCP world-receiver:80",
        ),
        (
            {
                "destination": {
                    "identity": 16777217,
                    "labels": ["cidr:1.1.1.1/32", "reserved:world"],
                },
                "destination_names": ["api.example.org"],
            },
            "21001 TCP api.example.org-receiver:80",
        ),
        (
            {"source": {"identity": 9, "labels": ["reserved:world-ipv4"]}},
            "world-sender TCP 21002:80",
        ),
        ({"source": {"workloads": [{"kind": "Job", "name": "x"}]}}, "Job/x TCP 21002:80"),
        ({"source": {}}, "world-sender TCP 21002:80"),
        ({"l4": {"ICMPv4": {"type": 8}}}, "21001 ICMP_V4 21002:0"),
        ({"l4": {"ICMPv6": {"type": 128}}}, "21001 ICMP_V6 21002:0"),
        ({"l4": {"UDP": {"destination_port": 53}}}, "21001 UDP 21002:53"),
        ({"l4": {"SCTP": {"destination_port": 9}}}, "21001 UNKNOWN_IP_PROTOCOL 21002:0"),
    ],
)
def test_ids_are_those_that_the_front_end_knows(fields: dict[str, object], expected: str) -> None:
    """Of what is outside by name and side, of protocols without ports with none."""
    _, links = Cards().take([talk(**fields)])
    assert [link.service_link.id for link in links] == [expected]


@pytest.mark.parametrize(
    "fields",
    [
        {"is_reply": True},
        {"is_reply": None, "sock_xlate_point": "SOCK_XLATE_POINT_PRE_DIRECTION_REV"},
        {"is_reply": None, "sock_xlate_point": "SOCK_XLATE_POINT_POST_DIRECTION_REV"},
    ],
)
def test_answers_draw_no_link_back(fields: dict[str, object]) -> None:
    """Who asks for flows without filters is told of both ends, and of no link against the way."""
    back = {"source": PAY, "destination": CART, "l4": {"TCP": {"destination_port": 41000}}}
    services, links = Cards().take([talk(**{**back, **fields})])
    assert {s.service.id for s in services} == {"21001", "21002"}
    assert links == []


def test_what_cannot_be_drawn_is_not_shown() -> None:
    """Without ends or protocol."""
    assert is_shown(talk())
    for missing in ("l4", "source", "destination"):
        bare = talk()
        bare.ClearField(missing)  # type: ignore[arg-type]
        assert not is_shown(bare)


def test_a_viewer_costs_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is no room for is not told, and what is known goes on."""
    monkeypatch.setattr(cards, "KEPT_MAX", 2)
    told = Cards()
    told.take([talk()])
    services, links = told.take([talk(source={**CART, "identity": 7})])
    assert services == []
    assert len(links) == 1
    assert len(told.take([talk(verdict="DROPPED")])[1]) == 1
