"""Reading what has changed in a text gives what reading all of it gives."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.address import parse_address
from model.cluster import ClusterId, ClusterName
from model.service import L4, Protocol, ServiceName, SharedService
from wire.etcd import service_reader, service_v1
from wire.etcd.errors import RemoteWireError

CLUSTER, NUMBER, NAME = ClusterName("beta"), ClusterId(2), ServiceName("a", "x")
TEXTS = [f"10.{n}.0.{m}" for n in range(3) for m in (1, 2, 10, 100)] + ["fd00::1", "fd00::a", "::1"]
ADDRESSES = st.sampled_from([parse_address(text) for text in TEXTS])
NAMES = st.sampled_from(["http", "", '}},"1', "}}}", 'a"b', "\\", "backends", "é", "a}}}}b", "x{"])
PORTS = st.dictionaries(
    NAMES | st.just("http"), st.builds(L4, st.sampled_from([80, 81]), st.sampled_from(Protocol))
)
HTTP = st.just({"http": L4(80, Protocol.TCP)})
BACKENDS = st.dictionaries(ADDRESSES, HTTP | HTTP | HTTP | PORTS)
OTHER = st.sampled_from(["", "a", "}}},", '"backends":{"1', "\\"])


@st.composite
def services(draw: st.DrawFn) -> SharedService:
    return SharedService(
        CLUSTER,
        NUMBER,
        NAME,
        draw(st.dictionaries(ADDRESSES, HTTP | PORTS, max_size=2)),
        draw(BACKENDS),
        labels={draw(OTHER): draw(OTHER)} if draw(st.booleans()) else {},
        shared=draw(st.booleans()),
    )


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("backends"), BACKENDS),
        st.tuples(st.just("backend"), st.tuples(ADDRESSES, st.none() | HTTP | PORTS)),
        st.tuples(st.just("service"), services()),
        st.tuples(st.just("bytes"), st.integers(0, 2**32)),
    ),
    min_size=1,
    max_size=12,
)
PIECES = (
    *(b'"', b"{", b"}", b",", b"}},", b'}},"10.9.0.1":{', b'"backends":{', b" ", b"\\", b":", b""),
    b'"10.8.0.1":{"http":{"Protocol":"TCP","Port":1}},',
    b',"10.8.0.1":{"http":{"Protocol":"TCP","Port":1}}',
    b'"10.0.0.1":{"http":{"Protocol":"TCP","Port":1}},',
)


def sorted_text(service: SharedService) -> bytes:
    """As a Go program writes it: keys in order."""
    backends = dict(sorted(service.backends.items(), key=lambda row: str(row[0])))
    return service_v1.encode(replace(service, backends=backends))


def spliced(text: bytes, seed: int) -> bytes:
    """A few bytes cut out, doubled or put in somewhere."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 2))):
        start = draw.randrange(len(text) + 1)
        stop = min(len(text), start + draw.choice((0, 0, 1, 3, 48)))
        piece = draw.choice((*PIECES, text[start:stop] * 2))
        text = text[:start] + piece + text[stop:]
    return text


def decoded(reader: service_reader.Reader | None, text: bytes) -> SharedService | str:
    try:
        if reader is None:
            return service_v1.decode("a/x", text, CLUSTER, NUMBER, "key")
        return reader.decode("a/x", text, CLUSTER, NUMBER, "key")
    except RemoteWireError as error:
        return str(error)


@pytest.fixture(autouse=True, scope="module")
def everything_is_large() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(service_reader, "LARGE_BYTES", 0)
    yield
    patch.undo()


@given(services(), EDITS)
@settings(max_examples=400, deadline=None)
def test_reading_a_change_equals_reading_all(
    first: SharedService, edits: list[tuple[str, object]]
) -> None:
    """Whatever is written after whatever: the same value, or the same refusal."""
    reader, service, text = service_reader.Reader(), first, sorted_text(first)
    assert decoded(reader, text) == decoded(None, text)
    for word, what in edits:
        match word, what:
            case "backends", dict():
                service = replace(service, backends=what)
                text = sorted_text(service)
            case "backend", (address, ports):
                rest = {a: p for a, p in service.backends.items() if a != address}
                more = {} if ports is None else {address: ports}
                service = replace(service, backends=rest | more)
                text = sorted_text(service)
            case "service", SharedService():
                service = what
                text = sorted_text(service)
            case _, int():
                text = spliced(text, what)
        assert decoded(reader, text) == decoded(None, text)


def test_one_backend_of_many_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stands, the rest of the text is not read, and the rest of the backends stay."""
    http = {"http": L4(80, Protocol.TCP)}
    hosts = [f"10.1.{a}.{b}" for a in range(10) for b in range(1, 101)]
    everybody = {parse_address(host): http for host in hosts}
    whole = SharedService(CLUSTER, NUMBER, NAME, {}, everybody, shared=True)
    reader = service_reader.Reader()
    before = decoded(reader, sorted_text(whole))
    assert before == whole
    monkeypatch.setattr(service_v1, "decode", None)
    for host in ("10.1.0.1", "10.1.0.10", "10.1.5.50", "10.1.9.99", "10.1.9.100"):
        backends = {a: p for a, p in everybody.items() if str(a) != host}
        without = SharedService(CLUSTER, NUMBER, NAME, {}, backends, shared=True)
        for one in (without, whole):
            found = decoded(reader, sorted_text(one))
            assert found == one
            assert isinstance(found, SharedService)
            assert isinstance(before, SharedService)
            assert sum(found.backends.get(a) is p for a, p in before.backends.items()) >= 999
