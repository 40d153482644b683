"""Flows become cards and links: who is one, what is counted, and what a picture of it holds."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from hubble import service_map
from hubble.service_map import Traffic
from tests.support.cli import isthmus
from wire.hubble import flow_pb2 as f
from wire.hubble import observer_pb2

Json = dict[str, Any]
WORLD: Json = {"identity": 2, "labels": ["reserved:world"]}
HOST: Json = {"identity": 1, "labels": ["reserved:host"]}


def pod(name: str, cluster: str = "west", workload: str = "", namespace: str = "shop") -> Json:
    """Seen from its own node when its workload is given."""
    app = name.partition("-")[0]
    labels = [f"k8s:app={app}", f"k8s:io.cilium.k8s.policy.cluster={cluster}"]
    made: Json = {"identity": 70000 + len(app), "namespace": namespace, "pod_name": name}
    made |= {"labels": labels, "cluster_name": cluster}
    if workload:
        made["workloads"] = [{"name": workload, "kind": "Deployment"}]
    return made


def flow(source: Json, destination: Json, port: int = 80, **more: Any) -> f.Flow:
    made = {
        "verdict": "FORWARDED",
        "node_name": "west/n1",
        "Type": "L3_L4",
        "event_type": {"type": 4},
        "l4": {"TCP": {"source_port": 40000, "destination_port": port}},
        "is_reply": False,
        "source": source,
        "destination": destination,
        **more,
    }
    return json_format.ParseDict({k: v for k, v in made.items() if v is not None}, f.Flow())


def answered(source: Json, destination: Json, port: int = 80, **more: Any) -> f.Flow:
    ports = {"TCP": {"source_port": port, "destination_port": 40000}}
    return flow(source, destination, l4=ports, is_reply=True, **more)


def made(*flows: f.Flow, by: service_map.By = "workload") -> service_map.Map:
    traffic = Traffic()
    for one in flows:
        traffic.add(one)
    return traffic.map(by)


def test_a_pod_is_its_workload_also_where_a_node_does_not_know_it() -> None:
    """The far node says the pod alone; all flows together say whose it is."""
    far, near = pod("web-6d4f-x", "east"), pod("web-6d4f-x", "east", "web-front")
    found = made(flow(pod("cart-1", workload="cart"), far), flow(pod("cart-2"), near))
    assert [card.id for card in found.cards] == [
        "east/shop/web-front",
        "west/shop/cart",
    ]
    (link,) = found.links
    assert (link.counts.flows, link.id) == (2, "west/shop/cart TCP east/shop/web-front:80")
    assert found.cards[0].pods == {"web-6d4f-x"}
    assert found.cards[1].pods == {"cart-1", "cart-2"}


def test_clusters_keep_equal_names_apart() -> None:
    cards = made(flow(pod("a-1", "west", "a"), pod("a-1", "east", "a"))).cards
    assert [(card.cluster, card.name) for card in cards] == [("east", "a"), ("west", "a")]


def test_answers_tell_of_requests_and_are_no_links() -> None:
    client, server = pod("cart-1", workload="cart"), pod("pay-1", workload="pay")
    l7 = {"type": "RESPONSE", "latency_ns": "4000000", "http": {"code": 200, "method": "GET"}}
    l7["http"]["headers"] = [{"key": "Content-Length", "value": "1200"}]
    slow = {**l7, "latency_ns": "8000000", "http": {"code": 503}}
    found = made(
        flow(client, server, 8080),
        answered(server, client, 8080, l7=l7, Type="L7"),
        answered(server, client, 8080, l7=slow, Type="L7"),
    )
    (link,) = found.links
    counts = link.counts
    assert (link.source, link.port, counts.flows, counts.bytes) == ("west/shop/cart", 8080, 1, 1200)
    assert counts.statuses == {200: 1, 503: 1}
    times = counts.latency_min_ns, counts.latency_max_ns, counts.latency_sum_ns
    assert times == (4_000_000, 8_000_000, 12_000_000)


def test_drops_count_as_they_are_whatever_direction_is_unknown() -> None:
    dropped = {"is_reply": None, "verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED"}
    client, server = pod("cart-1", workload="cart"), pod("pay-1", workload="pay")
    (link,) = made(flow(client, server, **dropped), flow(client, server)).links
    assert link.counts.verdicts == {"DROPPED": 1, "FORWARDED": 1}
    assert link.counts.drop_reasons == {"POLICY_DENIED": 1}


def test_what_is_outside_has_its_name_or_prefix() -> None:
    cidr: Json = {"identity": 16777217, "labels": ["cidr:192.0.2.0/24", "reserved:world"]}
    me = pod("cart-1", workload="cart")
    found = made(
        flow(me, WORLD),
        flow(me, WORLD, destination_names=["api.example.com"]),
        flow(me, cidr),
        flow(HOST, me),
        flow(me, {"identity": 0}),
        flow(me, {"identity": 9, "labels": ["reserved:world-ipv4"]}),
    )
    assert {(card.id, card.kind) for card in found.cards} == {
        ("west/shop/cart", "pod"),
        ("world", "world"),
        ("world/api.example.com", "world"),
        ("world/192.0.2.0/24", "world"),
        ("west/host", "host"),
        ("unknown", "unknown"),
        ("world-ipv4", "world-ipv4"),
    }


def test_the_service_a_socket_asked_for_is_its_backends() -> None:
    """Traces know backends only; the pair of translations of one socket says the service."""
    me, backend = pod("cart-1", workload="cart"), pod("pay-1", workload="pay")
    asked = flow(
        me,
        {},
        Type="SOCK",
        verdict="TRACED",
        socket_cookie="77",
        destination_service={"name": "payments", "namespace": "shop"},
    )
    got = flow(me, backend, Type="SOCK", verdict="TRANSLATED", socket_cookie="77")
    other = flow(me, pod("x-1"), Type="SOCK", verdict="TRANSLATED", socket_cookie="78")
    back = flow(
        pod("x-1"),
        me,
        Type="SOCK",
        verdict="TRANSLATED",
        socket_cookie="77",
        sock_xlate_point="SOCK_XLATE_POINT_POST_DIRECTION_REV",
    )
    flows = (asked, back, got, other, flow(me, backend))
    card = next(card for card in made(*flows).cards if card.name == "pay")
    assert card.services == {"shop/payments"}
    by_service = made(*flows, by="service")
    assert "west/service/shop/payments" in {card.id for card in by_service.cards}
    assert by_service.links[0].counts.flows == 1


def test_by_identity_as_the_ui_has_it() -> None:
    found = made(flow(pod("cart-1"), pod("cart-9")), by="identity")
    assert [(card.id, card.name) for card in found.cards] == [("west/70004", "cart")]


def test_ports_are_of_protocols_that_have_them() -> None:
    ping = {"ICMPv4": {"type": 8}}
    (link,) = made(flow(pod("a-1"), pod("b-1"), l4=ping)).links
    assert (link.protocol, link.port) == ("ICMP_V4", 0)


def test_room_is_bounded_and_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_map, "ENDS_MAX", 2)
    found = made(*(flow(pod("a-1"), pod("b-1"), port) for port in (1, 2, 3, 4, 1)))
    assert (len(found.links), found.left_out) == (2, 2)


_PODS = st.sampled_from(
    [pod(f"{app}-{n}", cluster) for app in "abc" for n in (1, 2) for cluster in ("west", "east")]
)
_ENDS = _PODS | st.sampled_from([WORLD, HOST])
_FLOWS = st.lists(
    st.builds(
        flow,
        _ENDS,
        _ENDS,
        st.integers(1, 3),
        is_reply=st.sampled_from([True, False, None]),
        verdict=st.sampled_from(["FORWARDED", "DROPPED", "AUDIT"]),
    ),
    max_size=20,
)


@given(_FLOWS, st.sampled_from(["workload", "service", "identity"]))
def test_nothing_is_lost_by_grouping(flows: list[f.Flow], by: service_map.By) -> None:
    """Requests are counted once each, whatever the cards; links meet cards that are there."""
    found = made(*flows, by=by)
    requests = [one for one in flows if not one.is_reply.value]
    assert sum(link.counts.flows for link in found.links) == len(requests)
    verdicts: Counter[str] = sum((link.counts.verdicts for link in found.links), Counter())
    assert verdicts == Counter(f.Verdict.Name(one.verdict) for one in requests)
    ids = {card.id for card in found.cards}
    assert {link.source for link in found.links} | {x.destination for x in found.links} <= ids
    assert len({link.id for link in found.links}) == len(found.links)


def written(path: Path, *flows: f.Flow) -> str:
    lines = []
    for one in flows:
        answer = observer_pb2.GetFlowsResponse(flow=one, node_name=one.node_name)
        shown = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        lines.append(json.dumps(shown))
    (path / "flows").write_text("\n".join(lines))
    return str(path / "flows")


def test_the_command_draws_and_tells(tmp_path: Path) -> None:
    """JSON has the ends of a link under both names that tools know; names cannot break the
    picture; filters choose."""
    odd = pod('<b>"x"</b>&\\-1', workload='<b>"x"\\n&')
    me = pod("cart-1", workload="cart")
    file = written(tmp_path, flow(me, odd, 8443), flow(me, WORLD, 443), flow(WORLD, me, 80))
    said = isthmus("hubble", "map", "--input-file", file, "-o", "json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    ids = {node["id"] for node in document["nodes"]}
    for link in document["links"]:
        assert link["source"] == link["sourceId"]
        assert link["target"] == link["destinationId"]
        assert {link["source"], link["target"]} <= ids
        assert link["value"] == 1
    picture = isthmus("hubble", "map", "--input-file", file)
    assert picture.code == 0, picture.err
    root = ET.fromstring(picture.out)
    texts = {"".join(item.itertext()) for item in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"west", "shop", "cart", "world", '<b>"x"\\n&', "TCP 8443"} <= texts
    words = ("hubble", "map", "--input-file", file, "-o", "json", "--to-identity", "world")
    links = json.loads(isthmus(*words).out)["links"]
    assert [link["destinationPort"] for link in links] == [443]


def test_without_graphviz_there_is_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, flow(pod("a-1"), pod("b-1")))
    monkeypatch.setenv("PATH", str(tmp_path))
    said = isthmus("hubble", "map", "--input-file", file)
    assert said.code == 1
    assert "install graphviz, or use -o dot" in said.err
    assert isthmus("hubble", "map", "--input-file", file, "-o", "dot").code == 0
