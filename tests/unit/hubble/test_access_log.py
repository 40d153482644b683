"""Proxies' records become flows; names that were looked up are shown; what is too much is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hubble import access_log
from hubble.access_log import RATE_PER_S, AccessLog
from hubble.access_log_socket import CONNECTIONS_MAX, AccessLogSocket
from hubble.decode import Decoder
from hubble.dns_names import ADDRESSES_MAX, NAMES_MAX, DnsNames
from hubble.names import Names
from hubble.redact import Redaction
from hubble.ring import RECORD_LOST, SOURCE_QUEUE, Entry, Ring, parse_lost
from reconcile.tasks import TaskGroup
from tests.support.access_log import (
    CLIENT,
    RESOLVER,
    SERVER,
    Proxy,
    answer,
    dns_answer,
    message,
    record,
)
from tests.support.agent import until
from wire import access_log as wire_log
from wire.access_log import AccessLogError
from wire.hubble import flow_pb2 as f
from wire.names import EndpointLine, PrefixLine, Self

AT = 1_772_359_200 * 10**9
OUTSIDE = "203.0.113.9"
GET = {"Method": "GET", "URL": "http://pay.shop/charge", "Protocol": "HTTP/1.1"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Node:
    """What a node's Hubble makes of records."""

    def __init__(self) -> None:
        self.names, self.dns = Names(), DnsNames()
        for line in (
            Self("west", "node-1"),
            EndpointLine(id=11, addresses=(CLIENT,), identity=101, namespace="shop", pod="cart-0"),
            EndpointLine(id=22, addresses=(SERVER,), identity=102, namespace="shop", pod="pay-0"),
            PrefixLine(prefix=f"{RESOLVER}/32", identity=103, namespace="kube-system", pod="dns-0"),
        ):
            self.names.apply(line, 1)
        self.access_log = AccessLog(self.names, self.dns)
        self.decoder = Decoder(self.names, bytes(8), self.dns)

    def flow(self, made: dict[str, Any], at_ns: int = AT) -> f.Flow:
        taken = self.access_log.take(message(made), at_ns)
        assert taken is not None
        found = self.decoder.decode(Entry(1, at_ns, taken))
        assert isinstance(found, f.Flow)
        return found


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_request_and_its_answer_are_joined(node: Node) -> None:
    asked = {"X-Request-Id": ["r1"], "Traceparent": [f"00-{TRACE}-b7ad6b7169203331-01"]}
    request = node.flow(record(HTTP={**GET, "Headers": {"Z": ["2"], **asked}}))
    assert request.Summary == "HTTP/1.1 GET http://pay.shop/charge"
    assert (request.Type, request.event_type.type, request.l7.type) == (f.L7, 129, f.REQUEST)
    assert request.HasField("is_reply")
    assert not request.is_reply.value
    assert (request.source.pod_name, request.destination.pod_name) == ("cart-0", "pay-0")
    assert (request.source.identity, request.destination.identity) == (101, 102)
    assert request.l4.TCP.destination_port == 80
    assert not request.l4.TCP.HasField("flags")
    assert not request.HasField("ethernet")
    assert [header.key for header in request.l7.http.headers] == [
        "Traceparent",
        "X-Request-Id",
        "Z",
    ]
    later = "2026-03-01T10:00:00.007900001Z"
    told = {**GET, "Code": 200, "Headers": {"x-request-id": ["r1"]}}
    reply = node.flow(answer(Timestamp=later, HTTP=told))
    assert reply.Summary == "HTTP/1.1 200 7ms (GET http://pay.shop/charge)"
    assert reply.l7.latency_ns == 7_900_000
    assert reply.is_reply.value
    assert (reply.source.pod_name, reply.destination.pod_name) == ("pay-0", "cart-0")
    assert request.trace_context.parent.trace_id == TRACE
    assert reply.trace_context.parent.trace_id == TRACE
    assert reply.time.ToNanoseconds() == AT  # when it came, not when the proxy says it was
    again = node.flow(answer(Timestamp=later, HTTP=told))
    assert again.l7.latency_ns == 0  # of no request that is known


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Forwarded", f.FORWARDED),
        ("Denied", f.DROPPED),
        ("Error", f.ERROR),
        ("Redirected", f.REDIRECTED),
    ],
)
@pytest.mark.parametrize(("point", "way"), [("Ingress", f.INGRESS), ("Egress", f.EGRESS)])
def test_verdict_and_direction(
    node: Node, said: str, verdict: "f.Verdict", point: str, way: "f.TrafficDirection"
) -> None:
    found = node.flow(record(Verdict=said, ObservationPoint=point, HTTP=GET))
    assert (found.verdict, found.traffic_direction) == (verdict, way)
    assert (found.drop_reason, found.drop_reason_desc) == (0, f.DROP_REASON_UNKNOWN)


SECRETS = {
    "Method": "GET",
    "URL": "http://joe:pw@pay.shop/a@b?token=7#x",
    "Protocol": "HTTP/1.1",
    "Headers": {"Authorization": ["Bearer x"], "X-Request-Id": ["r9"], "Accept": ["a", "b"]},
}
HIDDEN = "HUBBLE_REDACTED"


@pytest.mark.parametrize(
    ("settings", "url", "shown"),
    [
        ({}, f"http://joe:{HIDDEN}@pay.shop/a@b?token=7#x", set()),
        ({"url_query": True}, f"http://joe:{HIDDEN}@pay.shop/a@b", set()),
        ({"password": False}, SECRETS["URL"], set()),
        (
            {"headers_allow": frozenset(("accept",))},
            f"http://joe:{HIDDEN}@pay.shop/a@b?token=7#x",
            {"Accept"},
        ),
        (
            {"headers_deny": frozenset(("authorization",))},
            f"http://joe:{HIDDEN}@pay.shop/a@b?token=7#x",
            {"Accept", "X-Request-Id"},
        ),
    ],
)
def test_secrets_of_requests_are_not_shown(
    node: Node, settings: dict[str, Any], url: str, shown: set[str]
) -> None:
    """Nor are they in the record; an answer is joined with its request all the same."""
    node.access_log = AccessLog(node.names, node.dns, Redaction(**settings))
    found = node.flow(record(HTTP=SECRETS))
    assert found.l7.http.url == url
    assert found.Summary == f"HTTP/1.1 GET {url}"
    assert {h.key for h in found.l7.http.headers if h.value != HIDDEN} == shown
    assert len(found.l7.http.headers) == 4
    later = answer(Timestamp="2026-03-01T10:00:00.5Z", HTTP={**SECRETS, "Code": 200})
    taken = node.access_log.take(message(later), AT)
    assert taken is not None
    assert (b"Bearer x" in taken) is bool(shown & {"Authorization"})
    assert wire_log.decode(taken[1:]).latency_ns > 0


def test_a_kafka_key_is_hidden_when_that_is_wanted(node: Node) -> None:
    """In the summary too; what is no URL of a host stays as it is."""
    node.access_log = AccessLog(node.names, node.dns, Redaction(kafka_api_key=True))
    found = node.flow(record(Kafka={"APIKey": "produce", "CorrelationID": 7, "Topic": "orders"}))
    assert found.l7.kafka.api_key == HIDDEN
    assert "produce" not in found.Summary
    for url in ("/a//b:c@d", "a:b@c", "//host/x:y@z", "http://joe@host/", ""):
        assert node.flow(record(HTTP={**GET, "URL": url})).l7.http.url == url


def test_dns_questions_and_answers(node: Node) -> None:
    asked = {"Query": "pay.shop.", "QTypes": [1, 28], "ObservationSource": "proxy", "RCode": 3}
    question = node.flow(
        record(destination=RESOLVER, TransportProtocol=17, DNS={**asked, "IPs": ["10.0.0.1"]})
    )
    assert question.Summary == "DNS Query pay.shop. A,AAAA"
    assert question.l4.UDP.source_port == 41004
    assert (question.l7.dns.rcode, list(question.l7.dns.ips)) == (0, [])
    found = node.flow(dns_answer("pay.shop.", "10.96.3.4"))
    assert found.Summary == 'DNS Answer "10.96.3.4" TTL: 30 (Proxy pay.shop. A)'
    assert (list(found.l7.dns.rrtypes), found.l7.latency_ns) == (["A"], 0)
    missing = node.flow(dns_answer("nope.shop.", RCode=3, TTL=4294967295, QTypes=[28]))
    told = "DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy nope.shop. AAAA)"
    assert missing.Summary == told
    chained = node.flow(dns_answer("a.", "10.0.0.1", "10.0.0.2", CNAMEs=["b."], QTypes=[4000]))
    told = 'DNS Answer "10.0.0.1,10.0.0.2" CNAMEs: "b." TTL: 30 (Proxy a. Unknown)'
    assert chained.Summary == told


def test_kafka_and_others(node: Node) -> None:
    kafka = {"APIKey": "produce", "CorrelationID": 7, "Topic": "orders", "ErrorCode": -1}
    found = node.flow(record(Kafka=kafka))
    assert found.Summary == "Kafka request produce correlation id 7 topic 'orders'"
    assert found.l7.kafka.error_code == 0
    found = node.flow(answer(Kafka=kafka))
    told = "Kafka response produce correlation id 7 topic 'orders' return code -1"
    assert (found.Summary, found.l7.kafka.error_code) == (told, -1)
    found = node.flow(record(L7={"Proto": "r2d2", "Fields": {"cmd": "HALT", "a": "b"}}))
    assert found.Summary == "r2d2 Fields: map[a:b cmd:HALT]"
    assert found.l7.WhichOneof("record") is None


def test_flows_show_the_names_that_their_pod_asked_for(node: Node) -> None:
    node.flow(dns_answer("API.example.com.", OUTSIDE))
    out = node.flow(record(destination=OUTSIDE, HTTP=GET), AT + 1)
    assert (list(out.destination_names), list(out.source_names)) == (["api.example.com"], [])
    back = node.flow(answer(source=OUTSIDE, HTTP=GET), AT + 2)
    assert (list(back.destination_names), list(back.source_names)) == ([], ["api.example.com"])
    other = node.flow(record(source=SERVER, destination=OUTSIDE, HTTP=GET), AT + 3)
    assert list(other.destination_names) == []  # this pod asked for nothing
    before = node.flow(record(destination=OUTSIDE, HTTP=GET), AT - 10**10)
    assert list(before.destination_names) == []
    node.flow(dns_answer("www.example.com.", OUTSIDE), AT + 10**10)
    both = node.flow(record(destination=OUTSIDE, HTTP=GET), AT + 10**10)
    assert list(both.destination_names) == ["api.example.com", "www.example.com"]
    node.dns.forget(AT + 7200 * 10**9)
    assert len(node.dns) == 0


def test_what_is_remembered_is_bounded() -> None:
    dns = DnsNames()
    for number in range(ADDRESSES_MAX + 10):
        dns.learn(1, f"n{number}", [number.to_bytes(4, "big")], 5, AT)
    assert len(dns) == ADDRESSES_MAX
    for number in range(100):
        dns.learn(1, f"n{number:03}", [b"\1\2\3\4"], 5, AT)
    found = dns.get(1, b"\1\2\3\4", AT)
    assert (len(found), found[-1]) == (NAMES_MAX, "n099")


def test_unanswered_requests_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_REQUESTS_MAX", 2)
    for number in range(3):
        node.flow(record(HTTP={**GET, "Headers": {"X-Request-Id": [str(number)]}}))
    later = "2026-03-01T10:00:01.000000001Z"
    latencies = [
        node.flow(
            answer(Timestamp=later, HTTP={**GET, "Headers": {"X-Request-Id": [str(number)]}})
        ).l7.latency_ns
        for number in range(3)
    ]
    assert latencies == [0, 10**9, 10**9]


def test_more_than_the_rate_is_lost_and_counted(node: Node) -> None:
    text = message(record(HTTP=GET))
    taken = [node.access_log.take(text, AT) for _ in range(RATE_PER_S + 3)]
    assert (taken.count(None), node.access_log.lost) == (3, 3)
    assert node.access_log.take(text, AT + 10**9) is not None
    assert node.access_log.taken["http"] == RATE_PER_S + 1
    with pytest.raises(AccessLogError):
        node.access_log.take(b"{}", AT + 10**9)
    assert node.access_log.bad == 1


@contextlib.asynccontextmanager
async def listening(path: Path, node: Node, ring: Ring) -> AsyncIterator[AccessLogSocket]:
    server = AccessLogSocket(path, node.access_log, ring)
    async with TaskGroup() as tasks:
        task = tasks.create_task(server.run())
        await until(path.exists, "the socket")
        yield server
        task.cancel()


async def test_proxies_tell_by_a_socket_and_bad_ones_hurt_nobody(
    node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring, path = Ring(1023), tmp_path / "envoy" / "log.sock"
    async with listening(path, node, ring):
        good, bad = Proxy(path), Proxy(path)
        bad.tell(b"GET / HTTP/1.1")
        bad.tell(b"x" * 100_000)
        good.tell(record(HTTP=GET))
        bad.close()
        good.tell(dns_answer("pay.", "10.0.0.1"))
        await until(lambda: ring.newest == 2, "the records")
        more = [Proxy(path) for _ in range(CONNECTIONS_MAX)]
        assert await asyncio.to_thread(more[-1].is_turned_away)
        for one in (*more, good):
            one.close()
    assert node.access_log.bad == 2
    assert "no access-log record" in caplog.text  # once; the next in half a minute
    assert not await asyncio.to_thread(path.exists)
    last = ring.at(2)
    assert last is not None
    found = node.decoder.decode(last)
    assert isinstance(found, f.Flow)
    assert found.l7.dns.query == "pay."


async def test_a_flood_is_told_as_a_loss_while_the_loop_lives(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "RATE_PER_S", 100)
    ring, path = Ring(8191), tmp_path / "log.sock"
    async with listening(path, node, ring):
        proxy = Proxy(path)
        text = message(record(HTTP=GET))

        def flood() -> None:
            for _ in range(3000):
                proxy.tell(text)

        await asyncio.to_thread(flood)
        known = node.access_log
        await until(lambda: sum(known.taken.values()) + known.lost == 3000, "all records")
        entries = await until(lambda: losses(ring), "the loss")
        proxy.close()
    assert entries[0].source == SOURCE_QUEUE
    assert node.access_log.lost >= 2000


def losses(ring: Ring) -> list[Any]:
    entries = [ring.at(number) for number in range(1, ring.newest + 1)]
    return [parse_lost(one.record) for one in entries if one and one.record[0] == RECORD_LOST]
