"""What the programs tell user space about packets."""

import os
import time
from collections.abc import Iterator

import pytest

from datapath import syscall
from datapath.events import EventReader
from datapath.kernel_table import KernelTable
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import furnish
from tests.support.bpf import A, B, Machine
from tests.support.packets import tcp, udp
from wire.bpf.events import Drop, Event, PolicyVerdict, parse
from wire.bpf.layouts import DropReason, EventType, PolicyMatch, TrafficDirection

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW = PolicyEntry()
FREE = {PolicyKey(0, IN): ALLOW, PolicyKey(0, OUT): ALLOW}


def open_reader(machine: Machine) -> EventReader:
    """A reader owns its tables: it gets descriptors of its own."""
    ring, lost = (
        KernelTable(os.dup(machine.tables[name].fd), name) for name in ("ist_events", "ist_lost")
    )
    return EventReader(ring, lost)


@pytest.fixture(scope="module")
def telling() -> Iterator[Machine]:
    machine = Machine(changes={"config_policy": 1, "config_events": 1}).load()
    yield machine
    machine.close()


@pytest.fixture
def machine(telling: Machine) -> Machine:
    telling.clear()
    furnish(telling)
    for pod in (A, B):
        telling.policy(pod.number, FREE)
    return telling


@pytest.fixture
def reader(machine: Machine) -> Iterator[EventReader]:
    made = open_reader(machine)
    made.take()  # what earlier tests left
    yield made
    made.close()


def taken(reader: EventReader) -> list[Event]:
    return [event for _, record in reader.take() if (event := parse(record)) is not None]


def test_first_packet_of_a_connection_has_a_verdict_at_each_side(
    machine: Machine, reader: EventReader
) -> None:
    """Egress at the source and ingress at the destination, once for a connection."""
    machine.policy(A.number, {PolicyKey(B.identity, OUT, 6, 80, 24): PolicyEntry(rule=70000)})
    sent = tcp()
    machine.run("from_container", sent)
    out, into = taken(reader)
    assert isinstance(out, PolicyVerdict)
    assert isinstance(into, PolicyVerdict)
    assert (out.direction, out.header.endpoint) == (TrafficDirection.DIRECTION_EGRESS, A.number)
    assert (out.remote_identity, out.reason, out.rule) == (B.identity, 0, 70000)
    assert (out.protocol, out.port, out.match) == (6, 80, PolicyMatch.MATCH_L3_L4)
    assert (out.header.length, out.header.version) == (len(sent), 1)
    assert out.packet[14 + 12 :] == bytes(sent)[14 + 12 :]  # MACs, TTL and its checksum change
    assert (into.direction, into.header.endpoint) == (TrafficDirection.DIRECTION_INGRESS, B.number)
    assert (into.remote_identity, into.match) == (A.identity, PolicyMatch.MATCH_ALL)
    machine.run("from_container", tcp(flags="A"))
    assert taken(reader) == []


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (PolicyKey(B.identity, OUT), PolicyMatch.MATCH_L3_ONLY),
        (PolicyKey(B.identity, OUT, 6, 80, 24), PolicyMatch.MATCH_L3_L4),
        (PolicyKey(0, OUT, 6, 64, 18), PolicyMatch.MATCH_L4_ONLY),
        (PolicyKey(0, OUT), PolicyMatch.MATCH_ALL),
        (PolicyKey(B.identity, OUT, 6, 0, 8), PolicyMatch.MATCH_L3_PROTOCOL),
        (PolicyKey(0, OUT, 6, 0, 8), PolicyMatch.MATCH_PROTOCOL_ONLY),
    ],
)
def test_match_types(
    machine: Machine, reader: EventReader, key: PolicyKey, match: PolicyMatch
) -> None:
    """What of the row matched, for rows of every kind."""
    machine.policy(A.number, {key: ALLOW})
    machine.run("from_container", tcp())
    event = taken(reader)[0]
    assert isinstance(event, PolicyVerdict)
    assert event.match == match


@pytest.mark.parametrize("side", [A, B])
def test_denied_packet_has_a_verdict_and_a_drop(machine, reader, side) -> None:
    """Every denied packet is told, with both identities, where it was dropped and by which rule."""
    rows = {PolicyKey(0, d): PolicyEntry(deny=True, rule=4) for d in (IN, OUT)}
    machine.policy(side.number, rows)
    for _ in range(2):
        machine.run("from_container", udp())
        events = taken(reader)
        verdict, drop = events[-2:]
        assert isinstance(verdict, PolicyVerdict)
        assert (verdict.reason, verdict.rule) == (DropReason.DROP_POLICY_DENY_RULE, 4)
        assert isinstance(drop, Drop)
        assert drop.reason == DropReason.DROP_POLICY_DENY_RULE
        assert (drop.source_identity, drop.destination_identity) == (A.identity, B.identity)
        assert drop.destination_endpoint == (B.number if side is B else 0)
        assert drop.header.endpoint == side.number
        assert drop.line > 0


def test_the_verdict_about_a_services_packet_shows_the_backend(
    machine: Machine, reader: EventReader
) -> None:
    """Allowed or denied, at both sides: policy judges what the packet has become."""
    machine.backend(1, B.address, 8080)
    machine.service("10.96.0.10", 80, [1])
    machine.run("from_container", tcp(dst="10.96.0.10"))
    machine.policy(A.number, {PolicyKey(0, OUT): PolicyEntry(deny=True)})
    machine.run("from_container", tcp(dst="10.96.0.10", sport=40001))
    events = taken(reader)
    assert len(events) == 4  # two verdicts, then a verdict and a drop
    for event in events:
        assert isinstance(event, PolicyVerdict | Drop)
        assert event.packet[30:34] == bytes([10, 1, 0, 20])
        assert event.packet[36:38] == (8080).to_bytes(2, "big")


def test_audited_packet_is_told_so(machine: Machine, reader: EventReader) -> None:
    """It passes, and its verdict says that it would not have."""
    machine.policy(A.number, {PolicyKey(0, OUT): PolicyEntry(deny=True, audit=True, rule=9)})
    assert machine.run("from_container", tcp()).delivered
    event = taken(reader)[0]
    assert isinstance(event, PolicyVerdict)
    assert (event.audited, event.reason, event.rule) == (True, 0, 9)


def test_drops_of_other_reasons_and_short_packets_are_told(
    machine: Machine, reader: EventReader
) -> None:
    """Whatever drops a packet, and however long it is; the capture ends where the packet does."""
    machine.run("from_container", tcp(src=B.address))
    (drop,) = taken(reader)
    assert isinstance(drop, Drop)
    assert drop.reason == DropReason.DROP_INVALID_SOURCE_IP
    assert drop.packet == bytes(tcp(src=B.address))
    long = tcp(src=B.address, payload=b"x" * 500)
    machine.run("from_container", long)
    (drop,) = taken(reader)
    assert drop.packet == bytes(long)[:128]


def test_losses_are_counted_exactly(machine: Machine, reader: EventReader) -> None:
    """What was written and what was lost is what happened; the ring goes on after that."""
    before = sum(reader.lost()[EventType.EVENT_DROP])
    packets = 8000  # more than the ring holds
    for _ in range(packets):
        syscall.prog_test_run(
            machine.programs["from_container"], bytes(tcp(src=B.address)), bytes(192)
        )
    machine._take_drops()
    kept = 0
    while found := taken(reader):
        kept += len(found)
    lost = sum(reader.lost()[EventType.EVENT_DROP]) - before
    assert lost > 0
    assert kept + lost == packets
    machine.run("from_container", tcp(src=B.address))
    assert len(taken(reader)) == 1


def test_unknown_and_short_records() -> None:
    """A type of a later version is passed over; a record that ends too early is an error."""
    assert parse(b"") is None
    assert parse(bytes([99]) + bytes(60)) is None
    with pytest.raises(ValueError, match="event of type 1 has 3 bytes and needs 36"):
        parse(b"\x01\x00\x00")


def test_records_have_the_time_of_the_packet(machine: Machine, reader: EventReader) -> None:
    """On the wall clock, whenever they are read."""
    before = time.time_ns()
    machine.run("from_container", tcp(src=B.address))
    after = time.time_ns()
    time.sleep(0.05)
    ((time_ns, _),) = reader.take()
    slack = 5_000_000  # two clocks are read one after the other
    assert before - slack <= time_ns <= after + slack
