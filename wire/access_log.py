"""What a proxy tells of the requests it carries: one JSON object per message. Pure.

A proxy of the node sends it to Hubble's socket (ADR 0210). Member names are those of Cilium's
access-log record; members that are not known here are passed over.
"""

import datetime
import ipaddress
import re

import msgspec

RECORD_MAX_BYTES = 4096  # a message; what is longer is none

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_TYPES = ("Request", "Response", "Sample")
_VERDICTS = ("Forwarded", "Denied", "Error", "Redirected")
_POINTS = ("Ingress", "Egress")


class AccessLogError(ValueError):
    """Bytes that are no record: the text names the member and what it must be."""


class _Part(msgspec.Struct, rename="pascal", omit_defaults=True, frozen=True, gc=False):
    """An object of the record."""


class End(_Part, frozen=True, gc=False):
    """Source or destination."""

    id: int = msgspec.field(default=0, name="ID")  # of a pod of this node; 0: none, or not known
    ipv4: str = msgspec.field(default="", name="IPv4")
    ipv6: str = msgspec.field(default="", name="IPv6")
    port: int = 0
    identity: int = 0  # 0: the proxy does not know

    @property
    def address(self) -> str:
        """As text; empty when there is none."""
        return self.ipv4 or self.ipv6


class Http(_Part, frozen=True, gc=False):
    """A request, or the answer to one."""

    code: int = 0  # of requests 0
    method: str = ""
    url: str = msgspec.field(default="", name="URL")
    protocol: str = ""  # as HTTP/1.1
    headers: dict[str, list[str]] = {}


class Kafka(_Part, frozen=True, gc=False):
    """A request, or the answer to one."""

    error_code: int = 0
    api_version: int = msgspec.field(default=0, name="APIVersion")
    api_key: str = msgspec.field(default="", name="APIKey")
    correlation_id: int = msgspec.field(default=0, name="CorrelationID")
    topic: str = ""


class Dns(_Part, frozen=True, gc=False):
    """A question, or the answer to one."""

    query: str = ""  # ends with a dot
    ips: tuple[str, ...] = msgspec.field(default=(), name="IPs")
    ttl: int = msgspec.field(default=0, name="TTL")  # seconds
    cnames: tuple[str, ...] = msgspec.field(default=(), name="CNAMEs")
    observation_source: str = ""  # `proxy`
    rcode: int = msgspec.field(default=0, name="RCode")
    qtypes: tuple[int, ...] = msgspec.field(default=(), name="QTypes")
    answer_types: tuple[int, ...] = ()


class Other(_Part, frozen=True, gc=False):
    """A protocol that has no message of its own."""

    proto: str = ""
    fields: dict[str, str] = {}


class Record(_Part, frozen=True, gc=False):
    """One request or answer. Source and destination are those of the message itself."""

    type: str
    timestamp: str  # RFC 3339
    observation_point: str
    verdict: str
    source_endpoint: End
    destination_endpoint: End
    transport_protocol: int = 6  # IP's number
    http: Http | None = msgspec.field(default=None, name="HTTP")
    kafka: Kafka | None = None
    dns: Dns | None = msgspec.field(default=None, name="DNS")
    l7: Other | None = msgspec.field(default=None, name="L7")
    # Not of the proxy: what Hubble found out when the record came, for its readers.
    latency_ns: int = msgspec.field(default=0, name="hubbleLatencyNs")
    trace_id: str = msgspec.field(default="", name="hubbleTraceId")


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Record)
_UINT32 = 1 << 32


def encode(record: Record) -> bytes:
    """The record as a message."""
    return _ENCODER.encode(record)


def decode(message: bytes) -> Record:
    """What ``encode`` made, without asking again whether it makes sense."""
    return _DECODER.decode(message)


def parse(message: bytes) -> Record:
    """A message of a stranger. ``AccessLogError``."""
    if len(message) > RECORD_MAX_BYTES:
        raise AccessLogError(f"a record of more than {RECORD_MAX_BYTES} bytes: leave headers out")
    try:
        record = _DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AccessLogError(f"no access-log record: {error}") from None
    _check(record)
    if record.latency_ns or record.trace_id:
        record = msgspec.structs.replace(record, latency_ns=0, trace_id="")
    return record


def _check(record: Record) -> None:
    _one_of("Type", record.type, _TYPES)
    _one_of("Verdict", record.verdict, _VERDICTS)
    _one_of("ObservationPoint", record.observation_point, _POINTS)
    timestamp_ns(record)
    _check_end("SourceEndpoint", record.source_endpoint)
    _check_end("DestinationEndpoint", record.destination_endpoint)
    if record.dns is not None:
        _range("DNS.TTL", record.dns.ttl)
        _range("DNS.RCode", record.dns.rcode)
        for text in record.dns.ips:
            _address("DNS.IPs", text)
    elif record.http is not None:
        _range("HTTP.Code", record.http.code, 1000)
    elif record.kafka is not None:
        for name, value in (
            ("ErrorCode", record.kafka.error_code),
            ("APIVersion", record.kafka.api_version),
            ("CorrelationID", record.kafka.correlation_id),
        ):
            _range(f"Kafka.{name}", value + (1 << 31))
    elif record.l7 is None:
        raise AccessLogError("none of DNS, HTTP, Kafka and L7 is there: one of them is needed")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise AccessLogError(f"{name} is {value[:40]!r}: use one of {', '.join(known)}")


def _range(name: str, value: int, end: int = _UINT32) -> None:
    if not 0 <= value < end:
        raise AccessLogError(f"{name} is out of range")


def _address(name: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise AccessLogError(f"{name}: {text[:60]!r} is no IP address") from None


def _check_end(name: str, end: End) -> None:
    _address(f"{name}.IPv4 or IPv6", end.address)
    _range(f"{name}.Port", end.port, 1 << 16)
    _range(f"{name}.ID", end.id)
    _range(f"{name}.Identity", end.identity)


def timestamp_ns(record: Record) -> int:
    """Its time in ns since 1970. ``AccessLogError``."""
    found = _TIMESTAMP.fullmatch(record.timestamp)
    if found is not None:
        seconds, fraction, zone = found.groups()
        try:
            when = datetime.datetime.fromisoformat(seconds + zone.replace("Z", "+00:00"))
            return int(when.timestamp()) * 10**9 + int((fraction or "").ljust(9, "0"))
        except (ValueError, OverflowError):
            pass
    raise AccessLogError(f"Timestamp is {record.timestamp[:40]!r}: use RFC 3339")
