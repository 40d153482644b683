"""Messages of proxies into records of the ring. Pure; times are ns since 1970.

Here is what needs to know of several records: which answer belongs to which request, what names
were looked up, how many came in a second. What a single record means as a flow: ``l7``.
"""

import ipaddress
from collections import Counter, OrderedDict
from typing import Final

import msgspec

from hubble.dns_names import DnsNames
from hubble.names import Names, packed
from hubble.redact import Redaction
from hubble.ring import RECORD_ACCESS_LOG
from wire import access_log as wire

RATE_PER_S: Final = 10_000  # records taken; more than that are counted as lost
_REQUESTS_MAX: Final = 10_000  # that wait for their answer
_REQUEST_ID, _TRACE = "x-request-id", "traceparent"


class AccessLog:
    """Of one node. Counters only grow."""

    def __init__(self, names: Names, dns: DnsNames, redaction: Redaction | None = None) -> None:
        self._names, self._dns, self._redaction = names, dns, redaction
        self._requests: OrderedDict[str, tuple[int, str]] = OrderedDict()  # when, trace ID
        self._second, self._in_second = 0, 0
        self.taken: Counter[str] = Counter()  # by kind: dns, http, kafka, other
        self.bad = 0
        self.lost = 0  # too many at once

    def take(self, message: bytes, now_ns: int) -> bytes | None:
        """The record for the ring; ``None``: lost, too many come. ``AccessLogError``."""
        if now_ns // 10**9 != self._second:
            self._second, self._in_second = now_ns // 10**9, 0
        self._in_second += 1
        if self._in_second > RATE_PER_S:
            self.lost += 1
            return None
        try:
            record = wire.parse(message)
        except wire.AccessLogError:
            self.bad += 1
            raise
        if record.dns is not None:
            self.taken["dns"] += 1
            self._learn(record, record.dns, now_ns)
        elif record.http is not None:
            self.taken["http"] += 1
            record = self._joined(record, record.http)
        else:
            self.taken["kafka" if record.kafka is not None else "other"] += 1
        if self._redaction is not None:
            record = self._redaction.record(record)
        return bytes((RECORD_ACCESS_LOG,)) + wire.encode(record)

    def _learn(self, record: wire.Record, dns: wire.Dns, now_ns: int) -> None:
        if record.type != "Response" or not dns.ips or not dns.query:
            return
        asker = record.destination_endpoint
        number = asker.id
        if not number:
            local = self._names.local(packed(asker.address), now_ns)
            number = local.id if local is not None else 0
        if number:
            addresses = [ipaddress.ip_address(text).packed for text in dns.ips]
            self._dns.learn(number, dns.query, addresses, dns.ttl, now_ns)

    def _joined(self, record: wire.Record, http: wire.Http) -> wire.Record:
        """With the trace it is part of, and of an answer the time it took."""
        trace_id = _trace_id(header(http, _TRACE))
        request_id = header(http, _REQUEST_ID)
        if record.type == "Request":
            if request_id:
                self._requests[request_id] = wire.timestamp_ns(record), trace_id
                self._requests.move_to_end(request_id)
                if len(self._requests) > _REQUESTS_MAX:
                    self._requests.popitem(last=False)
            latency_ns = 0
        else:
            asked_ns, asked_trace = self._requests.pop(request_id, (0, ""))
            latency_ns = max(wire.timestamp_ns(record) - asked_ns, 0) if asked_ns else 0
            trace_id = trace_id or asked_trace
        return msgspec.structs.replace(record, latency_ns=latency_ns, trace_id=trace_id)


def header(http: wire.Http, name: str) -> str:
    """The first value of a header; empty: it is not there."""
    for key, values in http.headers.items():
        if key.lower() == name and values:
            return values[0]
    return ""


def _trace_id(traceparent: str) -> str:
    """Of W3C's header: version, trace, parent, flags. Empty when it is none."""
    parts = traceparent.split("-")
    is_whole = len(parts) >= 4 and len(parts[1]) == 32 and parts[1].strip("0")
    return parts[1] if is_whole else ""
