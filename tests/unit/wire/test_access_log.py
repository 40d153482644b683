"""Records of proxies: what is read, and what is refused with the member's name."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.access_log import answer, dns_answer, message, record
from wire import access_log


def test_a_record_survives_being_written_and_read() -> None:
    made = answer(
        HTTP={
            "Code": 200,
            "Method": "GET",
            "URL": "http://pay/x",
            "Protocol": "HTTP/1.1",
            "Headers": {"Via": ["a", "b"]},
        },
        NodeAddressInfo={"IPv4": "192.0.2.1"},  # not of interest
    )
    found = access_log.parse(message(made))
    assert found.http is not None
    assert found.http.headers == {"Via": ["a", "b"]}
    assert found.destination_endpoint.port == 41004
    assert access_log.parse(access_log.encode(found)) == found


def test_nobody_writes_hubbles_own_members() -> None:
    made = answer(HTTP={"Code": 200}, hubbleLatencyNs=5, hubbleTraceId="x")
    found = access_log.parse(message(made))
    assert (found.latency_ns, found.trace_id) == (0, "")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-03-01T10:00:00Z", 0),
        ("2026-03-01T10:00:00.25Z", 250_000_000),
        ("2026-03-01T11:00:00.000000007+01:00", 7),
    ],
)
def test_times_have_nanoseconds(text: str, ns: int) -> None:
    found = access_log.parse(message(record(Timestamp=text, HTTP={})))
    assert access_log.timestamp_ns(found) == 1_772_359_200 * 10**9 + ns


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (record(), "none of DNS, HTTP, Kafka and L7"),
        (record(Type="Question", HTTP={}), "Type is 'Question': use one of Request"),
        (record(Verdict="Perhaps", HTTP={}), "Verdict"),
        (record(ObservationPoint="Middle", HTTP={}), "ObservationPoint"),
        (record(Timestamp="yesterday", HTTP={}), "RFC 3339"),
        (record(Timestamp="2026-02-31T10:00:00Z", HTTP={}), "RFC 3339"),
        (record(source="pod-7", HTTP={}), "SourceEndpoint.IPv4.*'pod-7' is no IP address"),
        (record(DestinationEndpoint={"Port": 80}, HTTP={}), "DestinationEndpoint"),
        (record(SourceEndpoint={"IPv4": "10.0.0.1", "Port": 70000}, HTTP={}), "Port is out of"),
        (dns_answer("a.", "10.0.0.300"), "DNS.IPs"),
        (dns_answer("a.", "10.0.0.3", TTL=-1), "DNS.TTL"),
        (record(HTTP={"Code": 70000}), "HTTP.Code"),
        (record(Kafka={"CorrelationID": 1 << 40}), "CorrelationID"),
        (record(HTTP={"Code": "200"}), "HTTP.Code"),
        (record(HTTP={"URL": "x" * 5000}), "more than 4096 bytes"),
    ],
)
def test_a_bad_record_is_refused_by_name(made: dict[str, object], said: str) -> None:
    with pytest.raises(access_log.AccessLogError, match=said):
        access_log.parse(message(made))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(access_log.AccessLogError):
        access_log.parse(data)


_VALUES = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=3)
_MEMBERS = st.sampled_from(["Type", "Timestamp", "SourceEndpoint", "DNS", "HTTP", "Kafka", "L7"])


@given(_MEMBERS, _VALUES | st.dictionaries(st.sampled_from(["IPv4", "Port", "IPs"]), _VALUES))
def test_a_record_with_one_odd_member_is_read_or_refused(member: str, value: object) -> None:
    made = message({**record(HTTP={"Code": 1}), member: value})
    try:
        found = access_log.parse(made)
    except access_log.AccessLogError:
        return
    assert msgspec.json.decode(access_log.encode(found))["Type"] == found.type
