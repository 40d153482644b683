"""Times as the ``hubble`` command reads and prints them. Pure."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

_UNITS_NS: Final = {
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "ns": 1,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_DURATION: Final = re.compile(rf"^(?:{_PART.pattern})+$")
_LAYOUTS: Final = {
    "StampMilli": "%b %d %H:%M:%S.%f",
    "YearMonthDay": "%Y-%m-%d",
    "YearMonthDayHour": "%Y-%m-%dT%H%z",
    "YearMonthDayHourMinute": "%Y-%m-%dT%H:%M%z",
    "RFC3339": "%Y-%m-%dT%H:%M:%S%z",
    "RFC3339Milli": "%Y-%m-%dT%H:%M:%S.%f%z",
    "RFC3339Micro": "%Y-%m-%dT%H:%M:%S.%f%z",
    "RFC3339Nano": "%Y-%m-%dT%H:%M:%S.%f%z",
    "RFC1123Z": "%a, %d %b %Y %H:%M:%S %z",
}
LAYOUTS: Final = tuple(_LAYOUTS)
_FRACTION: Final = re.compile(r"\.(\d{6})\d*")


def duration_ns(text: str) -> int | None:
    """``1h30m``, ``500ms``; ``None``: no duration."""
    if text == "0":
        return 0
    if not _DURATION.match(text):
        return None
    return sum(int(float(n) * _UNITS_NS[unit]) for n, unit in _PART.findall(text))


def parse_time(text: str, now: datetime) -> Timestamp:
    """A duration before ``now`` (``3m``, ``1h30m``) or a time in a known layout; ``ValueError``."""
    parsed = Timestamp()
    ago_ns = duration_ns(text)
    if ago_ns is not None:
        parsed.FromNanoseconds(int(now.timestamp() * 10**6) * 1000 - ago_ns)
        return parsed
    text_us = _FRACTION.sub(r".\1", text)
    for layout in _LAYOUTS.values():
        try:
            time = datetime.strptime(text_us, layout)
        except ValueError:
            continue
        if "%Y" not in layout:
            time = time.replace(year=now.year)
        parsed.FromDatetime(time if time.tzinfo else time.replace(tzinfo=UTC))
        return parsed
    known = ", ".join(_LAYOUTS)
    raise ValueError(f"{text!r} is neither a duration (3m, 1h30m) nor a time as {known}")


def _utc(time: Timestamp) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time.seconds)


def formatter(layout: str) -> Callable[[Timestamp], str]:
    """How to print times in UTC. A time that is not set prints as ``N/A``."""
    digits = {"StampMilli": 3, "RFC3339Milli": 3, "RFC3339Micro": 6, "RFC3339Nano": 9}.get(layout)
    of_s: int | None = None  # the last second: most lines share what is said of it
    before = behind = ""

    def show(time: Timestamp) -> str:
        nonlocal of_s, before, behind
        seconds, nanos = time.seconds, time.nanos
        if not seconds and not nanos:
            return "N/A"
        if seconds != of_s:
            of_s = seconds
            before, _, behind = _seconds(_utc(time), layout).partition("@")
        if digits is None:
            return before
        fraction = f"{nanos:09}"[:digits]
        if layout == "RFC3339Nano":
            fraction = fraction.rstrip("0")
        return f"{before}.{fraction}{behind}" if fraction else before + behind

    return show


def _seconds(time: datetime, layout: str) -> str:
    """All but the fraction, whose place is marked by ``@``."""
    if layout == "StampMilli":
        return f"{time:%b} {time.day:2d} {time:%H:%M:%S}@"
    if layout == "RFC1123Z":
        return f"{time:%a, %d %b %Y %H:%M:%S} +0000"
    text = {
        "YearMonthDay": f"{time:%Y-%m-%d}",
        "YearMonthDayHour": f"{time:%Y-%m-%dT%H}Z",
        "YearMonthDayHourMinute": f"{time:%Y-%m-%dT%H:%M}Z",
        "RFC3339": f"{time:%Y-%m-%dT%H:%M:%S}Z",
    }
    return text.get(layout, f"{time:%Y-%m-%dT%H:%M:%S}@Z")


def duration(seconds: int) -> str:
    """``1h1m1s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
