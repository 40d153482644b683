"""What the programs tell of packets that pass: at which points, how often, and as what."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pytest

from datapath.events import EventReader
from tests.bpf.conftest import furnish
from tests.bpf.test_events import open_reader
from tests.support.bpf import NODE, REMOTE, REMOTE_IDENTITY, A, B, Machine, address
from tests.support.packets import echo, from_tunnel, remote_tcp, tcp, udp, unreachable
from wire.bpf.events import Drop, Event, Trace, Translation, parse
from wire.bpf.layouts import (
    ConntrackScope,
    EventType,
    TraceLevel,
    TracePoint,
    TraceReason,
    TranslationPoint,
)

VIP = "10.96.0.10"
P, R = TracePoint, TraceReason
WORLD = "203.0.113.9"
NEXT = 0xFFFFFFFF
INTERVAL_S = 500  # no test takes as long


class Traced:
    """A machine that tells, and what it told."""

    def __init__(self, level: TraceLevel, more: Mapping[str, int] = MappingProxyType({})) -> None:
        changes = {"config_events": 1, "config_trace": int(level)}
        changes["config_trace_interval_s"] = INTERVAL_S
        self.machine = Machine(changes={**changes, **more}).load()
        self.reader: EventReader = open_reader(self.machine)

    def close(self) -> None:
        self.reader.close()
        self.machine.close()

    def events(self) -> list[Event]:
        return [event for _, record in self.reader.take() if (event := parse(record)) is not None]

    def run(self, program: str, packet, **options) -> list[Event]:
        self.machine.run(program, packet, **options)
        return self.events()

    def points(self, program: str, packet, **options) -> list[tuple[TracePoint, TraceReason]]:
        events = self.run(program, packet, **options)
        return [(P(e.point), R(e.reason)) for e in events if isinstance(e, Trace)]


def fresh(level: TraceLevel) -> Iterator[Traced]:
    traced = Traced(level)
    yield traced
    traced.close()


@pytest.fixture(scope="module")
def _every() -> Iterator[Traced]:
    yield from fresh(TraceLevel.TRACE_ALL)


@pytest.fixture(scope="module")
def _outcome() -> Iterator[Traced]:
    yield from fresh(TraceLevel.TRACE_OUTCOME)


@pytest.fixture(scope="module")
def _changes() -> Iterator[Traced]:
    yield from fresh(TraceLevel.TRACE_CHANGES)


def cleaned(traced: Traced) -> Traced:
    traced.machine.clear()
    furnish(traced.machine)
    traced.events()
    return traced


@pytest.fixture
def every(_every: Traced) -> Traced:
    return cleaned(_every)


@pytest.fixture
def outcome(_outcome: Traced) -> Traced:
    return cleaned(_outcome)


@pytest.fixture
def changes(_changes: Traced) -> Traced:
    return cleaned(_changes)


def test_every_point_is_told_with_what_the_packet_is_to_its_flow(every: Traced) -> None:
    """Where it comes in nothing is known of its flow; where it goes on everything is."""
    run = every.points
    assert run("from_container", tcp()) == [
        (P.TRACE_FROM_ENDPOINT, R.REASON_UNKNOWN),
        (P.TRACE_TO_ENDPOINT, R.REASON_NEW),
    ]
    assert run("from_container", tcp(flags="A"))[1] == (P.TRACE_TO_ENDPOINT, R.REASON_ESTABLISHED)
    assert run("from_container", tcp(dst=REMOTE)) == [
        (P.TRACE_FROM_ENDPOINT, R.REASON_UNKNOWN),
        (P.TRACE_TO_OVERLAY, R.REASON_NEW),
    ]
    answer = remote_tcp(sport=80, dport=40000, flags="SA")
    assert run("from_overlay", answer, vni=REMOTE_IDENTITY) == [
        (P.TRACE_FROM_OVERLAY, R.REASON_UNKNOWN),
        (P.TRACE_TO_ENDPOINT, R.REASON_REPLY),
    ]
    assert run("from_container", tcp(dst=WORLD))[1] == (P.TRACE_TO_STACK, R.REASON_NEW)
    assert run("from_container", tcp(dst=NODE))[1] == (P.TRACE_TO_HOST, R.REASON_NEW)
    to_node = from_tunnel(tcp(src=REMOTE, dst=NODE))
    assert run("from_overlay", to_node, vni=REMOTE_IDENTITY) == [
        (P.TRACE_FROM_OVERLAY, R.REASON_UNKNOWN),
        (P.TRACE_TO_HOST, R.REASON_UNKNOWN),
    ]
    assert run("from_host", tcp(src=NODE, dst=A.address)) == [
        (P.TRACE_FROM_HOST, R.REASON_UNKNOWN),
        (P.TRACE_TO_ENDPOINT, R.REASON_NEW),
    ]
    assert run("from_host", tcp(src=NODE, dst=REMOTE))[1] == (
        P.TRACE_TO_OVERLAY,
        R.REASON_UNKNOWN,
    )
    error = unreachable(A.address, B.address, tcp(src=B.address, dst=A.address).payload)
    assert run("from_container", error)[1] == (P.TRACE_TO_ENDPOINT, R.REASON_RELATED)


def test_a_trace_says_who_and_where(every: Traced) -> None:
    """Identities, endpoints, device, and the packet as it stands at that point."""
    sent = tcp(payload=b"x" * 300)
    came, went = every.run("from_container", sent)
    assert isinstance(came, Trace)
    assert isinstance(went, Trace)
    assert (came.header.endpoint, came.source_identity, came.ifindex) == (A.number, A.identity, 1)
    assert came.packet == bytes(sent)[:128]
    assert came.header.length == len(sent)
    assert (went.header.endpoint, went.destination_endpoint) == (B.number, B.number)
    assert (went.source_identity, went.destination_identity) == (A.identity, B.identity)
    assert (went.ifindex, went.encrypted) == (B.ifindex, False)
    assert went.original == address(A.address)[12:]
    assert went.packet[:6] == bytes.fromhex(B.mac.replace(":", ""))
    (_, out) = every.run("from_container", tcp(dst=REMOTE))
    assert isinstance(out, Trace)
    assert (out.header.endpoint, out.destination_endpoint) == (A.number, 0)
    assert out.destination_identity == REMOTE_IDENTITY


def test_ip6_packets_are_told_alike(every: Traced) -> None:
    """The same points, with the family's bit."""
    came, went = every.run("from_container", tcp(src=A.address6, dst=B.address6))
    assert isinstance(went, Trace)
    assert (came.point, went.point) == (P.TRACE_FROM_ENDPOINT, P.TRACE_TO_ENDPOINT)
    assert went.packet[12:14] == b"\x86\xdd"


def test_without_entries_only_what_became_of_a_packet_is_told(outcome: Traced) -> None:
    """Each packet once, however many there are of a flow."""
    for flags in ("S", "A", "A", "A"):
        assert [p for p, _ in outcome.points("from_container", tcp(flags=flags))] == [
            P.TRACE_TO_ENDPOINT
        ]


def test_a_flow_tells_only_what_is_new(changes: Traced) -> None:
    """Its first packet, its first reply, each TCP flag once in each direction; nothing else."""
    run = changes.points
    assert run("from_container", tcp()) == [(P.TRACE_TO_ENDPOINT, R.REASON_NEW)]
    assert run("from_container", tcp()) == []
    assert run("from_container", tcp(flags="A")) == [(P.TRACE_TO_ENDPOINT, R.REASON_ESTABLISHED)]
    for _ in range(3):
        assert run("from_container", tcp(flags="A", payload=b"x")) == []
    assert run("from_container", tcp(flags="PA")) == [(P.TRACE_TO_ENDPOINT, R.REASON_ESTABLISHED)]
    assert run("from_container", tcp(flags="FA")) == [(P.TRACE_TO_ENDPOINT, R.REASON_ESTABLISHED)]
    assert run("from_container", tcp(flags="FPA")) == []


def test_replies_are_told_apart_from_what_they_answer(changes: Traced) -> None:
    """Each direction has its own flags and its own clock."""
    run = changes.points
    assert run("from_container", tcp(dst=REMOTE)) == [(P.TRACE_TO_OVERLAY, R.REASON_NEW)]
    answer = remote_tcp(sport=80, dport=40000, flags="SA")
    for expected in ([(P.TRACE_TO_ENDPOINT, R.REASON_REPLY)], []):
        assert run("from_overlay", answer, vni=REMOTE_IDENTITY) == expected


@pytest.mark.parametrize("make", [udp, echo])
def test_a_flow_without_flags_is_told_at_intervals(changes: Traced, make) -> None:
    """Its first packet, then once in an interval."""
    scope = ConntrackScope.CONNTRACK_INGRESS
    assert changes.points("from_container", make()) == [(P.TRACE_TO_ENDPOINT, R.REASON_NEW)]
    assert changes.points("from_container", make()) == []
    told = changes.machine.flow(scope).tx_told_s
    changes.machine.change_flow(scope, tx_told_s=(told - INTERVAL_S // 2) & 0xFFFF)
    assert changes.points("from_container", make()) == []
    changes.machine.change_flow(scope, tx_told_s=(told - INTERVAL_S) & 0xFFFF)
    assert changes.points("from_container", make()) == [(P.TRACE_TO_ENDPOINT, R.REASON_ESTABLISHED)]
    assert changes.points("from_container", make()) == []


def test_of_what_no_entry_is_kept_beginning_and_end_are_told(changes: Traced) -> None:
    """The node's own TCP to other nodes' pods."""
    packets = [tcp(src=NODE, dst=REMOTE, flags=flags) for flags in ("S", "A", "PA", "FA", "R")]
    told = [len(changes.points("from_host", packet)) for packet in packets]
    assert told == [1, 0, 0, 1, 1]


def test_a_service_gives_way_to_its_backend_once_for_a_flow(changes: Traced) -> None:
    """Before and after, with the client; then the packet, which goes to the backend."""
    changes.machine.backend(1, B.address, 8080)
    changes.machine.service(VIP, 80, [1])
    before, after, passed = changes.run("from_container", tcp(dst=VIP, sport=41000))
    assert isinstance(before, Translation)
    assert isinstance(after, Translation)
    assert before.point == TranslationPoint.TRANSLATION_BEFORE
    assert after.point == TranslationPoint.TRANSLATION_AFTER
    assert (before.destination, before.destination_port) == (address(VIP)[12:], 80)
    assert (after.destination, after.destination_port) == (address(B.address)[12:], 8080)
    for event in (before, after):
        assert (event.source, event.source_port) == (address(A.address)[12:], 41000)
        assert (event.endpoint, event.source_identity) == (A.number, A.identity)
        assert (event.protocol, event.is_ip6) == (6, False)
    assert isinstance(passed, Trace)
    assert changes.run("from_container", tcp(dst=VIP, sport=41000)) == []


def test_the_first_answer_of_a_backend_becomes_the_services(changes: Traced) -> None:
    """Told once for a flow, with the client as the one that is answered."""
    changes.machine.backend(1, REMOTE, 8080)
    changes.machine.service(VIP, 80, [1])
    changes.run("from_container", tcp(dst=VIP, sport=44000))
    answer = remote_tcp(sport=8080, dport=44000, flags="SA")
    before, after, told = changes.run("from_overlay", answer, vni=REMOTE_IDENTITY)
    assert isinstance(before, Translation)
    assert isinstance(after, Translation)
    points = TranslationPoint
    assert before.point == points.TRANSLATION_ANSWER_BEFORE
    assert after.point == points.TRANSLATION_ANSWER_AFTER
    assert (before.destination, before.destination_port) == (address(REMOTE)[12:], 8080)
    assert (after.destination, after.destination_port) == (address(VIP)[12:], 80)
    for event in (before, after):
        assert (event.source, event.source_port) == (address(A.address)[12:], 44000)
        assert (event.endpoint, event.source_identity) == (A.number, A.identity)
    assert isinstance(told, Trace)
    more = remote_tcp(sport=8080, dport=44000, flags="FA")
    events = changes.run("from_overlay", more, vni=REMOTE_IDENTITY)
    assert [type(event) for event in events] == [Trace]


def test_what_nobody_can_read_between_the_nodes_is_told_so(every: Traced) -> None:
    """By WireGuard, whose packets need no mark; what IPsec decrypted carries one."""
    sent = every.run("from_container", tcp(dst=REMOTE, sport=45000))
    assert [(P(e.point), e.encrypted) for e in sent if isinstance(e, Trace)] == [
        (P.TRACE_FROM_ENDPOINT, False),
        (P.TRACE_TO_OVERLAY, True),
    ]
    local = every.run("from_container", tcp(dst=B.address, sport=45000))
    assert not any(e.encrypted for e in local if isinstance(e, Trace))


@pytest.mark.parametrize(("mark", "expected"), [(0, False), (0x10D00, True), (0xE00, False)])
@pytest.mark.parametrize("ipsec", [0, 1])
def test_what_ipsec_decrypted_is_told_so(mark: int, expected: bool, ipsec: int) -> None:
    """As it arrives and on to the pod; without IPsec a mark says nothing."""
    changes = {"config_native": 1, "config_ipsec": ipsec, "config_wireguard_ifindex": 0}
    traced = Traced(TraceLevel.TRACE_ALL, changes)
    furnish(traced.machine)
    packet = from_tunnel(tcp(src=REMOTE, dst=A.address))
    told = traced.run("from_network", packet, mark=mark)
    traced.close()
    assert [(P(e.point), e.encrypted) for e in told if isinstance(e, Trace)] == [
        (P.TRACE_FROM_NETWORK, expected and bool(ipsec)),
        (P.TRACE_TO_ENDPOINT, expected and bool(ipsec)),
    ]


def test_an_answer_through_a_service_keeps_its_backend(every: Traced) -> None:
    """The packet has the service's address when it reaches the client; the trace has both."""
    every.machine.backend(1, REMOTE, 8080)
    every.machine.service(VIP, 80, [1])
    every.run("from_container", tcp(dst=VIP, sport=43000))
    answer = remote_tcp(sport=8080, dport=43000, flags="SA")
    *_, told = every.run("from_overlay", answer, vni=REMOTE_IDENTITY)
    assert isinstance(told, Trace)
    assert told.reason == R.REASON_REPLY
    assert told.packet[26:30] == address(VIP)[12:]
    assert told.original == address(REMOTE)[12:]
    assert told.source_identity == REMOTE_IDENTITY


def test_a_pod_that_reaches_itself_is_known_as_the_sender(every: Traced) -> None:
    """Its address is replaced on the way; the trace keeps it."""
    every.machine.backend(1, A.address, 8080)
    every.machine.service(VIP, 80, [1])
    (passed,) = [
        e
        for e in every.run("from_container", tcp(dst=VIP, sport=42000))
        if isinstance(e, Trace) and e.point == P.TRACE_TO_ENDPOINT
    ]
    assert passed.original == address(A.address)[12:]


def test_a_dropped_packet_is_no_trace(changes: Traced) -> None:
    """It is told once, as a drop."""
    (event,) = changes.run("from_container", tcp(src=B.address))
    assert isinstance(event, Drop)


def test_lost_traces_are_counted_exactly(every: Traced) -> None:
    """By type and CPU: taken plus lost is what was sent."""
    before = sum(every.reader.lost()[EventType.EVENT_TRACE])
    for number in range(4000):
        every.machine.run("from_container", tcp(dst=WORLD, sport=1024 + number))
    kept = sum(record[0] == EventType.EVENT_TRACE for _, record in every.reader.take())
    lost = sum(every.reader.lost()[EventType.EVENT_TRACE]) - before
    assert lost > 0
    assert kept + lost == 2 * 4000


@pytest.mark.parametrize("wireguard", [0, 7])
def test_what_wireguard_decrypted_is_told_so_behind_the_tunnel(wireguard: int) -> None:
    """What its device leaves to the stack carries a mark; without WireGuard that says nothing."""
    traced = Traced(TraceLevel.TRACE_ALL, {"config_wireguard_ifindex": wireguard})
    furnish(traced.machine)
    left = traced.machine.run("from_wireguard", remote_tcp())
    told = traced.run("from_overlay", remote_tcp(), vni=REMOTE_IDENTITY, mark=left.mark)
    traced.close()
    assert left.verdict == NEXT  # no packet of our tunnel
    assert [(P(e.point), e.encrypted) for e in told if isinstance(e, Trace)] == [
        (P.TRACE_FROM_OVERLAY, bool(wireguard)),
        (P.TRACE_TO_ENDPOINT, bool(wireguard)),
    ]
