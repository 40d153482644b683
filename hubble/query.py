"""What one request wants to read: where it begins, what it takes, when it is over. Pure.

The rules are Hubble's (GetFlowsRequest): ``since`` beats ``number`` and ``first``; ``number``
counts from the start position forwards and does not limit one who follows; the first event later
than ``until`` ends the stream. Losses pass every filter and are not counted.
"""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from hubble.ring import Ring


class QueryError(ValueError):
    """A request that contradicts itself; the message says how."""


@dataclass(frozen=True, slots=True)
class Span:
    """How much is asked for, of what time. Times in ns since 1970, both inclusive."""

    number: int = 0  # none: no limit
    first: bool = False  # count from the oldest, not back from the newest
    follow: bool = False
    since_ns: int | None = None
    until_ns: int | None = None


def _time_ns(time: Timestamp, name: str) -> int:
    if not (0 <= time.nanos < 10**9 and -62135596800 <= time.seconds < 253402300800):
        raise QueryError(f"{name} is no time between the years 1 and 9999")
    return time.seconds * 10**9 + time.nanos


def span_of(
    *, number: int, first: bool, follow: bool, since: Timestamp | None, until: Timestamp | None
) -> Span:
    """The span of a request's fields; ``QueryError``."""
    if first and follow:
        raise QueryError("first cannot be specified with follow")
    return Span(
        number=number,
        first=first,
        follow=follow,
        since_ns=None if since is None else _time_ns(since, "since"),
        until_ns=None if until is None else _time_ns(until, "until"),
    )


def start_number(span: Span, ring: Ring) -> int | None:
    """Where forward reading begins; ``None``: after the last ``span.number`` that match."""
    if span.since_ns is not None:
        return ring.first_since(span.since_ns)
    if span.first or (span.number == 0 and not span.follow):
        return ring.oldest
    if span.number == 0:
        return ring.newest + 1
    return None
