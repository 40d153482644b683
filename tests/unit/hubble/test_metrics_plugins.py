"""What each metric counts of a flow."""

import pytest

from hubble.metrics.engine import Engine
from hubble.metrics.options import parse_text
from hubble.ring import Entry
from telemetry.metrics import render, render_open
from tests.support.hubble import flow
from tests.support.metrics_page import Scraped, parse
from wire.hubble import flow_pb2 as f

TCP = {"source_port": 40000, "destination_port": 80}
DNS = {"type": 129}


def count(text: str, *flows: f.Flow, limit: int = 1000) -> dict[str, Scraped]:
    """The page after these flows."""
    return parse(render(_engine(text, flows, limit).families()))


def _engine(text: str, flows: tuple[f.Flow, ...], limit: int = 1000) -> Engine:
    engine = Engine(lambda entry: flows[entry.number], lambda: 1, limit)
    engine.configure(parse_text(text))
    engine.take(Entry(n, 0, bytes([one.event_type.type])) for n, one in enumerate(flows))
    return engine


def samples(page: dict[str, Scraped], name: str) -> list[tuple[dict[str, str], float]]:
    return page[name].samples


def tcp(flags: tuple[str, ...] = (), **fields: object) -> f.Flow:
    l4 = {"TCP": {**TCP, "flags": dict.fromkeys(flags, True)}}
    ip = {"source": "10.1.0.1", "destination": "10.1.0.2", "ipVersion": "IPv4"}
    return flow(**{"l4": l4, "IP": ip, **fields})


def test_drop_counts_a_packet_once() -> None:
    """The event of the drop counts, that of the verdict does not; refused requests do."""
    dropped = {"verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED"}
    page = count(
        "drop",
        tcp(**dropped, event_type={"type": 5}),
        tcp(**dropped, event_type={"type": 1, "sub_type": 133}),
        flow(verdict="DROPPED", event_type=DNS, l7={"dns": {"query": "x."}}),
        tcp(),
    )
    assert samples(page, "hubble_drop_total") == [
        ({"reason": "DROP_REASON_UNKNOWN", "protocol": "DNS"}, 1),
        ({"reason": "POLICY_DENIED", "protocol": "TCP"}, 1),
    ]


def test_flow_tells_kinds_apart() -> None:
    """Protocol, type, subtype and verdict of every kind of event."""
    page = count(
        "flow",
        tcp(trace_observation_point="TO_ENDPOINT"),
        tcp(trace_observation_point="TO_ENDPOINT"),
        tcp(event_type={"type": 5}, verdict="AUDIT"),
        flow(event_type={"type": 1}, verdict="DROPPED"),
        flow(event_type={"type": 7}, verdict="TRACED", l4={"TCP": TCP}),
        flow(event_type=DNS, l7={"http": {"method": "GET"}}),
    )
    got = [(*s[0].values(), s[1]) for s in samples(page, "hubble_flows_processed_total")]
    assert sorted(got) == [
        ("HTTP", "L7", "HTTP", "FORWARDED", 1),
        ("TCP", "PolicyVerdict", "", "AUDIT", 1),
        ("TCP", "Trace", "to-endpoint", "FORWARDED", 2),
        ("Unknown L4", "Drop", "", "DROPPED", 1),
        ("Unknown flow", "Unknown", "7", "TRACED", 1),
    ]


def test_tcp_flags_of_what_was_forwarded() -> None:
    """A beginning, its answer, ends; neither acknowledgements nor drops."""
    page = count(
        "tcp",
        tcp(("SYN",)),
        tcp(("SYN", "ACK")),
        tcp(("FIN", "ACK")),
        tcp(("RST",), IP={"source": "fd00::1", "destination": "fd00::2", "ipVersion": "IPv6"}),
        tcp(("ACK",)),
        tcp(("SYN",), verdict="DROPPED"),
    )
    assert samples(page, "hubble_tcp_flags_total") == [
        ({"flag": "FIN", "family": "IPv4"}, 1),
        ({"flag": "RST", "family": "IPv6"}, 1),
        ({"flag": "SYN", "family": "IPv4"}, 1),
        ({"flag": "SYN-ACK", "family": "IPv4"}, 1),
    ]


def test_ports_of_requests_only() -> None:
    """Neither answers, nor where that is unknown, nor drops; ICMP has port 0."""
    unknown = tcp()
    unknown.ClearField("is_reply")
    page = count(
        "port-distribution",
        tcp(),
        tcp(is_reply=True),
        unknown,
        tcp(verdict="DROPPED"),
        flow(l4={"ICMPv4": {"type": 8}}),
    )
    assert samples(page, "hubble_port_distribution_total") == [
        ({"protocol": "ICMPv4", "port": "0"}, 1),
        ({"protocol": "TCP", "port": "80"}, 1),
    ]


def test_icmp_of_both_families() -> None:
    """By type, each under its own family."""
    page = count(
        "icmp", flow(l4={"ICMPv4": {"type": 8}}), flow(l4={"ICMPv6": {"type": 129}}), tcp()
    )
    assert samples(page, "hubble_icmp_total") == [
        ({"family": "IPv4", "type": "EchoRequest"}, 1),
        ({"family": "IPv6", "type": "EchoReply"}, 1),
    ]


def world(**fields: object) -> f.Flow:
    return tcp(("SYN",), destination={"identity": 2, "labels": ["reserved:world"]}, **fields)


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("flows-to-world", {"FORWARDED": 2, "DROPPED": 1}),
        ("flows-to-world:any-drop", {"FORWARDED": 2, "DROPPED": 2}),
        ("flows-to-world:syn-only", {"FORWARDED": 1, "DROPPED": 1}),
    ],
)
def test_flows_to_the_world(text: str, verdicts: dict[str, int]) -> None:
    """No answers; of drops those of policy, unless all are asked for."""
    ack = world()
    ack.l4.TCP.flags.ACK = True
    page = count(
        f"{text};port" if ":" in text else f"{text}:port",
        world(),
        ack,
        world(is_reply=True),
        world(verdict="DROPPED", drop_reason_desc="POLICY_DENIED"),
        world(verdict="DROPPED", drop_reason_desc="INVALID_SOURCE_IP"),
        tcp(),
    )
    found = {s[0]["verdict"]: s[1] for s in samples(page, "hubble_flows_to_world_total")}
    assert found == verdicts
    assert {s[0]["port"] for s in samples(page, "hubble_flows_to_world_total")} == {"80"}


def test_policy_by_direction_match_and_action() -> None:
    """Verdicts of packets and of proxies; what the host sends is not judged."""
    verdict = {"event_type": {"type": 5}, "traffic_direction": "INGRESS"}
    page = count(
        "policy",
        tcp(**verdict, policy_match_type=2, source={"identity": 70000}),
        tcp(**verdict, verdict="DROPPED", source={"identity": 70000}),
        tcp(**verdict, source={"identity": 1}),
        flow(event_type=DNS, l7={"http": {}}, traffic_direction="EGRESS"),
        tcp(),
    )
    assert samples(page, "hubble_policy_verdicts_total") == [
        ({"direction": "egress", "match": "l7/http", "action": "forwarded"}, 1),
        ({"direction": "ingress", "match": "l3-l4", "action": "forwarded"}, 1),
        ({"direction": "ingress", "match": "none", "action": "dropped"}, 1),
    ]


def dns(qtypes: list[str], **more: object) -> f.Flow:
    answer = more.pop("answer", {})
    told = {"query": "shop.example.", "qtypes": qtypes, **answer}
    return flow(event_type=DNS, l7={"dns": told}, **more)


def test_dns_questions_answers_and_refusals() -> None:
    """By outcome, type and number of addresses; each record of an answer by its type."""
    answer = {"ips": ["192.0.2.1", "192.0.2.2"], "rrtypes": ["CNAME", "A"]}
    page = count(
        "dns:query;ignoreAAAA",
        dns(["A"]),
        dns(["A"], is_reply=True, answer=answer),
        dns(["A"], is_reply=True, answer={"rcode": 3}),
        dns(["A"], verdict="DROPPED"),
        dns(["AAAA"]),
    )
    query = {"query": "shop.example."}
    a = {"qtypes": "A"}
    assert samples(page, "hubble_dns_queries_total") == [
        ({"rcode": "", **a, "ips_returned": "0", **query}, 1),
        ({"rcode": "Policy denied", **a, "ips_returned": "0", **query}, 1),
    ]
    assert samples(page, "hubble_dns_responses_total") == [
        ({"rcode": "No Error", **a, "ips_returned": "2", **query}, 1),
        ({"rcode": "Non-Existent Domain", **a, "ips_returned": "0", **query}, 1),
    ]
    assert samples(page, "hubble_dns_response_types_total") == [
        ({"type": "A", **a, **query}, 1),
        ({"type": "CNAME", **a, **query}, 1),
    ]


CLIENT = {"namespace": "shop", "pod_name": "client-0", "workloads": [{"name": "client"}]}
SERVER = {"namespace": "shop", "pod_name": "server-0", "workloads": [{"name": "server"}]}
HTTP = {"method": "GET", "protocol": "HTTP/1.1", "url": "http://shop/"}


def request() -> f.Flow:
    return flow(
        event_type=DNS,
        l7={"type": "REQUEST", "http": HTTP},
        source=CLIENT,
        destination=SERVER,
        traffic_direction="INGRESS",
        trace_context={"parent": {"trace_id": "abc123"}},
        time="2025-01-01T00:00:01.5Z",
    )


def response(code: int = 200, latency_ns: int = 30_000_000) -> f.Flow:
    return flow(
        event_type=DNS,
        l7={"type": "RESPONSE", "latency_ns": latency_ns, "http": {**HTTP, "code": code}},
        source=SERVER,
        destination=CLIENT,
        is_reply=True,
        traffic_direction="INGRESS",
        trace_context={"parent": {"trace_id": "abc123"}},
        time="2025-01-01T00:00:01.5Z",
    )


CONTEXT = "sourceContext=workload-name;destinationContext=workload-name"


def test_http_counts_requests_and_responses_each_as_it_went() -> None:
    """Durations from responses."""
    page = count(f"http:{CONTEXT}", request(), response(), response(503, 2_000_000_000))
    forth = {"source": "client", "destination": "server"}
    back = {"source": "server", "destination": "client"}
    told = {"method": "GET", "protocol": "HTTP/1.1"}
    server = {"reporter": "server"}
    assert samples(page, "hubble_http_requests_total") == [({**forth, **told, **server}, 1)]
    assert samples(page, "hubble_http_responses_total") == [
        ({**back, **told, "status": "200", **server}, 1),
        ({**back, **told, "status": "503", **server}, 1),
    ]
    took = page["hubble_http_request_duration_seconds"]
    assert took.total(**back, method="GET", reporter="server") == 2


def test_http_v2_tells_responses_as_requests() -> None:
    """The client is the source, and the status is the request's."""
    page = count(f"httpV2:{CONTEXT}", request(), response(), response(503))
    forth = {"source": "client", "destination": "server"}
    told = {**forth, "method": "GET", "protocol": "HTTP/1.1"}
    assert samples(page, "hubble_http_requests_total") == [
        ({**told, "status": "200", "reporter": "server"}, 1),
        ({**told, "status": "503", "reporter": "server"}, 1),
    ]
    assert page["hubble_http_request_duration_seconds"].total(**forth) == 2
    assert "hubble_http_responses_total" not in page


def test_exemplars_are_shown_by_open_metrics() -> None:
    """The trace of one of the events, in counters and in the bucket of its duration."""
    engine = _engine("httpV2:exemplars=true", (response(),))
    page = render_open(engine.families())
    mark = ' # {traceID="abc123"} '
    assert f'reporter="server"}} 1{mark}1 1735689601.500' in page
    assert f'le="0.05"}} 1{mark}0.03 1735689601.500' in page
    assert "# TYPE hubble_http_requests counter" in page
    assert page.endswith("# EOF\n")
    assert mark not in render(engine.families())
    assert mark not in render_open(_engine("httpV2", (response(),)).families())


def test_kafka_requests() -> None:
    kafka = {"topic": "orders", "api_key": "produce", "error_code": 0}
    one = flow(
        event_type=DNS,
        l7={"type": "REQUEST", "latency_ns": 10**9, "kafka": kafka},
        traffic_direction="EGRESS",
    )
    page = count("kafka", one, one)
    labels = {"topic": "orders", "api_key": "produce", "error_code": "0", "reporter": "client"}
    assert samples(page, "hubble_kafka_requests_total") == [(labels, 2)]
    assert page["hubble_kafka_request_duration_seconds"].total(topic="orders") == 2


def test_the_number_of_series_is_bounded_and_sums_stay_true() -> None:
    """What finds no room counts under ``other``, with the labels that are of a fixed set."""
    flows = [tcp(IP={"source": f"10.1.{n}.1", "ipVersion": "IPv4"}) for n in range(50)]
    page = count("flow:sourceContext=ip", *flows, *flows, limit=10)
    found = samples(page, "hubble_flows_processed_total")
    assert len(found) == 11
    assert sum(value for _, value in found) == 100
    (other,) = [value for labels, value in found if labels["source"] == "other"]
    assert other == 80
    name = {"metric": "hubble_flows_processed_total"}
    assert page["hubble_metrics_series_overflows_total"].total(**name) == 80
    assert {labels["protocol"] for labels, _ in found} == {"TCP"}


def test_series_of_a_pod_end_with_it() -> None:
    """Of all metrics that name it, on either side; what comes after that begins anew."""
    flows = (request(), response(), tcp(source=CLIENT, destination={"pod_name": "x"}))
    text = "http:sourceContext=pod;destinationContext=pod flow:sourceContext=pod tcp"
    engine = _engine(text, flows)
    pod = ("shop", "client-0")
    assert engine.knows(pod)
    engine.remove([pod])
    assert not engine.knows(pod)
    page = parse(render(engine.families()))
    assert samples(page, "hubble_http_requests_total") == []
    assert samples(page, "hubble_http_responses_total") == []
    assert [s[0]["source"] for s in samples(page, "hubble_flows_processed_total")] == [
        "shop/server-0"
    ]
    engine.take([Entry(0, 0, bytes([129]))])
    page = parse(render(engine.families()))
    assert page["hubble_http_requests_total"].total() == 1


def test_what_is_asked_for_as_before_goes_on_with_its_numbers() -> None:
    """Filters change, metrics come and go; other labels begin at nothing."""
    flows = (request(), tcp(("SYN",)))
    engine = _engine("flow tcp", flows)
    engine.configure(parse_text("flow drop"))
    page = parse(render(engine.families()))
    assert page["hubble_flows_processed_total"].total() == 2
    assert "hubble_tcp_flags_total" not in page
    assert "hubble_drop_total" in page
    engine.configure(parse_text("flow:sourceContext=pod"))
    assert parse(render(engine.families()))["hubble_flows_processed_total"].total() == 0
