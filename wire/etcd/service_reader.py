"""Shared services of one cluster, read by what has changed in their text. Pure.

A service of 5,000 backends is a value of 300 KB, which costs 6 ms to read and is written anew for
every backend that comes or goes. What the last text and this one begin and end with is compared as
bytes; only the backends between are read. Where that is not certain to give what reading all would
give, all is read (ADR 0112). Costs a copy of the text of values above ``LARGE_BYTES``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.service import L4, SharedService
from wire.etcd import service_v1
from wire.etcd.codec import LIMIT_BYTES
from wire.etcd.errors import RemoteWireError

LARGE_BYTES = 16_384  # below, reading all costs less than 0.4 ms

# In JSON of exactly our shape without a backslash a quote either begins a string or ends one, and
# what follows an end is no letter and no digit. So these are found between strings only.
_BEGIN = re.compile(rb'"backends":\{(?=")')
_END = re.compile(rb'\}\}(?=\}(,"[A-Za-z]|\}))')
_BOUNDARY = re.compile(rb'\}\},(?="[0-9A-Fa-f])')
_CUT = len(b"}},")
_SEEN = len(b'}},"0')  # a boundary is certain only when all of this is the same in both

Backends = dict[Address, dict[str, L4]]


@dataclass(frozen=True, slots=True)
class _Text:
    """A value whose entries of backends lie one after the other in ``begin``:``end``."""

    data: bytes
    begin: int
    end: int
    service: SharedService


class Reader:
    """Keeps the last large texts by the name of the service."""

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}

    def decode(
        self, name: str, data: bytes, cluster: ClusterName, cluster_id: ClusterId, where: str
    ) -> SharedService:
        """As ``service_v1.decode``; the answer is the same."""
        known = self._texts.get(name)
        if known is not None:
            service = known.service
            if (service.cluster, service.cluster_id) == (cluster, cluster_id):
                changed = _changed(known, data, where)
                if changed is not None:
                    self._texts[name] = changed
                    return changed.service
            del self._texts[name]
        service = service_v1.decode(name, data, cluster, cluster_id, where)
        if len(data) >= LARGE_BYTES:
            text = _text(data, service, where)
            if text is not None:
                self._texts[name] = text
        return service

    def forget(self, name: str) -> None:
        """The service is gone."""
        self._texts.pop(name, None)


def _text(data: bytes, service: SharedService, where: str) -> _Text | None:
    """Where the backends are, if that is certain."""
    begin = _BEGIN.search(data)
    if begin is None or b"\\" in data or data.count(b'"backends"') != 1:
        return None
    end = _END.search(data, begin.end())
    if end is None or not service_v1.is_exact(data):
        return None
    entries = data[begin.end() : end.end()]
    try:
        backends = service_v1.decode_ports(b"{%b}" % entries, where)
    except RemoteWireError:
        return None
    if backends != service.backends or len(_BOUNDARY.findall(entries)) + 1 != len(backends):
        return None
    return _Text(data, begin.end(), end.end(), service)


def _changed(known: _Text, data: bytes, where: str) -> _Text | None:
    """The text as it is now, if only backends differ and they can be read by themselves."""
    old = known.data
    if len(data) > LIMIT_BYTES:
        return None
    if old == data:
        return known
    most = min(len(old), len(data))
    same = _common(most, lambda start, stop: old[start:stop] == data[start:stop])
    rest = _common(
        most - same,
        lambda start, stop: (
            old[len(old) - stop : len(old) - start] == data[len(data) - stop : len(data) - start]
        ),
    )
    start = _last_boundary(known, same)
    stop = _next_boundary(known, len(old) - rest)
    if start is None or stop is None:
        return None
    grown = len(data) - len(old)
    # Before another entry stands a comma.
    last = stop - (stop < known.end)
    before = _entries(old[start:last], where)
    after = _entries(data[start : last + grown], where)
    if before is None or after is None:
        return None
    backends = dict(known.service.backends)
    values = [backends.pop(address) for address in before]
    if not backends.keys().isdisjoint(after):
        return None
    for address, ports in after.items():
        # What is the same stays the same object: readers compare by identity first.
        backends[address] = next((known for known in values if known == ports), ports)
    return _Text(data, known.begin, known.end + grown, replace(known.service, backends=backends))


def _common(most: int, is_same: Callable[[int, int], bool]) -> int:
    """How much is the same from the start, by halves."""
    if is_same(0, most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if is_same(low, middle):
            low = middle
        else:
            high = middle
    return low


def _last_boundary(text: _Text, same: int) -> int | None:
    """Where the entry begins in which the first difference lies."""
    at = text.data.rfind(b'}},"', text.begin, max(text.begin, same - 1))
    while at >= 0:
        if _BOUNDARY.match(text.data, at):
            return at + _CUT
        at = text.data.rfind(b'}},"', text.begin, at + _CUT)
    return text.begin if same > text.begin + 1 else None


def _next_boundary(text: _Text, differing: int) -> int | None:
    """Where the first entry begins that is the same again, or the end of all."""
    found = _BOUNDARY.search(text.data, max(differing, text.begin), text.end)
    if found is not None:
        return found.end()
    return text.end if differing <= text.end else None


def _entries(entries: bytes, where: str) -> Backends | None:
    """Backends one after the other."""
    if b"\\" in entries or b'"backends"' in entries:
        return None
    try:
        found = service_v1.decode_ports(b"{%b}" % entries, where)
    except RemoteWireError:
        return None
    return found if len(_BOUNDARY.findall(entries)) + 1 == len(found) else None
