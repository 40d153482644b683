"""Counting by key gives what counting one by one gives."""

import functools
import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether

from hubble.decode import Decoder
from hubble.filters import compile_filters
from hubble.metrics.engine import Engine
from hubble.metrics.options import Metric, parse_file, parse_text
from hubble.metrics.plugins_l7 import PLUGINS
from hubble.metrics.record_keys import keyer
from hubble.ring import Entry, Lost, lost_record
from telemetry.metrics import render
from tests.support.hubble_records import (
    AT,
    CLIENT,
    OUT,
    REMOTE,
    SERVER,
    VIP,
    drop,
    some_names,
    trace,
    verdict,
)
from tests.support.metrics_page import parse
from wire.bpf import layouts as w
from wire.hubble import flow_pb2 as f
from wire.names import EndpointLine

USUAL = "dns drop tcp flow icmp port-distribution"
LABELS = (
    "labelsContext=source_pod,source_namespace,destination_namespace,destination_ip,"
    "traffic_direction"
)
WHO = f"{LABELS};sourceContext=workload-name|reserved-identity|ip;destinationEgressContext=app|dns"
FILE = b"""
metrics:
  - name: flow
    contextOptions: [{name: sourceContext, values: [pod]}]
    includeFilters: [{source_port: ["40000"]}, {traffic_direction: [EGRESS]}]
  - name: tcp
    excludeFilters: [{tcp_flags: [{ACK: true}]}]
  - name: drop
    includeFilters: [{destination_pod: ["default/"], verdict: [DROPPED]}]
  - name: port-distribution
"""
CONFIGURATIONS = (
    parse_text(USUAL),
    parse_text(" ".join(f"{name}:{WHO}" for name in USUAL.split())),
    parse_text("policy flows-to-world:port;any-drop;sourceContext=pod icmp tcp:sourceContext=ip"),
    parse_file(FILE),
)

ENDS = (CLIENT, SERVER, REMOTE, OUT, "10.1.0.77")
PORTS = ((40000, 80), (80, 40000), (50001, 53))
MACS = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FLAGS = ("S", "SA", "A", "FA", "R", "SEC", "N")


@functools.cache
def packets() -> tuple[bytes, ...]:
    """Usual ones, and those that have no key."""
    made = [MACS / ARP(hwsrc="02:00:00:00:00:01", psrc=CLIENT)]
    for source, destination in itertools.permutations(ENDS, 2):
        ip = MACS / IP(src=source, dst=destination)
        for sport, dport in PORTS:
            made += [ip / TCP(sport=sport, dport=dport, flags=flags) for flags in FLAGS[:2]]
            made.append(ip / UDP(sport=sport, dport=dport) / b"question")
    ends = {"src": CLIENT, "dst": OUT}
    upper = TCP(sport=40000, dport=80)
    made += [MACS / IP(**ends) / TCP(sport=40000, dport=80, flags=flags) for flags in FLAGS]
    for kind, code in ((0, 0), (3, 0), (3, 1), (8, 0)):
        made.append(MACS / IP(**ends) / ICMP(type=kind, code=code))
    made.append(MACS / IP(**ends, options=[IPOption_Router_Alert()]) / upper)
    made += [MACS / IP(**ends, flags="MF", frag=at) / upper for at in (0, 185)]
    made.append(MACS / IP(**ends, flags="DF") / upper / (b"x" * 100))
    for source, destination in itertools.permutations(("fd00:1::10", "2001:db8::9")):
        for begin in (IPv6(), IPv6(tc=0xB8)):
            begin.src, begin.dst = source, destination
            made += [MACS / begin / upper, MACS / begin / ICMPv6EchoRequest()]
    return tuple(map(bytes, made))


@st.composite
def translations(draw: st.DrawFn) -> bytes:
    def packed(address: str) -> bytes:
        return bytes(map(int, address.split("."))).ljust(16, b"\0")

    point, protocol = draw(st.sampled_from((1, 2))), draw(st.sampled_from((0, 1, 2)))
    to, source = (packed(draw(st.sampled_from(some))) for some in ((VIP, OUT), ENDS))
    port, who = draw(st.sampled_from((80, 53))), draw(st.sampled_from(((0, 0), (11, 65546))))
    return w.TranslationEvent(7, point, to, port, 9, 9, protocol, 0, source, 40000, *who).pack()


@st.composite
def records(draw: st.DrawFn) -> bytes:
    packet = draw(st.sampled_from(packets()))
    kind = draw(st.sampled_from(("trace", "drop", "verdict", "translation", "cut", "lost")))
    if kind == "translation":
        return draw(translations())
    if kind == "lost":
        return lost_record(Lost(1, 0, 7))
    if kind == "drop":
        reasons = st.sampled_from((133, 181, 132))
        return drop(
            packet, draw(reasons), draw(st.sampled_from((0, 22))), draw(st.sampled_from((0, 22)))
        )
    if kind == "verdict":
        return verdict(
            packet, draw(st.sampled_from((0, -133, -181))), draw(st.booleans()), draw(st.booleans())
        )
    if kind == "cut":
        return trace(packet[: draw(st.sampled_from((10, 20, 36, 50)))])
    return trace(
        packet,
        point=draw(st.sampled_from((0, 2, 3, 4))),
        reason=draw(st.sampled_from((0, 1, 2, 3, 5, 0x80))),
        endpoint=draw(st.sampled_from((0, 11, 22))),
        source=draw(st.sampled_from((0, 65546, 2))),
        destination=draw(st.sampled_from((0, 65556, 2))),
        original=draw(st.sampled_from((bytes(16), bytes([10, 1, 0, 10]).ljust(16, b"\0")))),
    )


def one_by_one(metrics: tuple[Metric, ...], entries: list[Entry]) -> dict[str, Counter[object]]:
    """The simple way: decode everything, ask every plugin."""
    decoder = Decoder(some_names(), b"saltsalt")
    found: dict[str, Counter[object]] = {}
    for metric in metrics:
        plugin = PLUGINS[metric.name](metric)
        wanted = compile_filters(metric.include, metric.exclude)
        for entry in entries:
            flow = decoder.decode(entry)
            if isinstance(flow, f.Flow) and (wanted is None or wanted(flow)):
                for series in plugin.series(flow):
                    series.value += 1
        for table in plugin.tables:
            samples = table.family().samples
            found[table.name] = Counter({tuple(s.labels.items()): int(s.value) for s in samples})
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CONFIGURATIONS),
    st.lists(records(), max_size=12),
    st.integers(1, 3),
    st.integers(0, 12),
)
def test_counting_by_key_is_counting_one_by_one(
    metrics: tuple[Metric, ...], some: list[bytes], times: int, cut: int
) -> None:
    """Whatever comes, in whatever batches, read between them or not."""
    entries = [Entry(n, AT, record) for n, record in enumerate(some * times)]
    decoder = Decoder(some_names(), b"saltsalt")
    engine = Engine(decoder.decode, lambda: 1)
    engine.configure(metrics)
    engine.take(entries[:cut])
    engine.families()
    engine.take(entries[cut:])
    page = parse(render(engine.families()))
    for name, counts in one_by_one(metrics, entries).items():
        got = Counter({tuple(labels.items()): int(v) for labels, v in page[name].samples})
        assert got == counts, name


def packet(sport: int = 40000, src: str = CLIENT) -> bytes:
    return bytes(MACS / IP(src=src, dst=SERVER) / TCP(sport=sport, dport=80, flags="A"))


def test_records_that_are_alike_are_decoded_once() -> None:
    """Whatever the client's port is, on the way and back; other ends, other keys."""
    decoder = Decoder(some_names(), b"saltsalt")
    engine = Engine(decoder.decode, lambda: 1)
    engine.configure(parse_text(USUAL))
    back = [
        bytes(MACS / IP(src=SERVER, dst=CLIENT) / TCP(sport=80, dport=40000 + n))
        for n in range(200)
    ]
    engine.take(Entry(n, AT, trace(packet(40000 + n))) for n in range(200))
    engine.take(Entry(n, AT, trace(one, reason=2)) for n, one in enumerate(back))
    assert engine.decoded == 2
    engine.configure(parse_text("flow:sourceContext=pod"))
    engine.take(
        Entry(n, AT, trace(packet(src=src))) for n in range(200) for src in (CLIENT, REMOTE)
    )
    assert engine.decoded == 4


def test_a_name_that_changes_is_seen_at_once() -> None:
    """What was learnt of names is learnt again; counts of before stay where they were."""
    names = some_names()
    engine = Engine(Decoder(names, b"saltsalt").decode, lambda: names.revision)
    engine.configure(parse_text("flow:sourceContext=pod"))
    engine.take([Entry(1, AT, trace(packet()))])
    gone, new = (
        EndpointLine(id=11, gone=True),
        EndpointLine(id=12, addresses=(CLIENT,), identity=65546, namespace="default", pod="next"),
    )
    for line in (gone, new):
        names.apply(line, AT + 1)
    engine.take([Entry(2, AT + 2, trace(packet()))])
    page = parse(render(engine.families()))["hubble_flows_processed_total"]
    assert page.total(source="default/client-6d4f-x") == 1
    assert page.total(source="default/next") == 1


def test_keys_hold_what_is_needed_and_no_more() -> None:
    """Ports of clients and times are in none; ends are in those for names."""
    plain, named = keyer(False), keyer(True)
    assert plain(trace(packet(1))) == plain(trace(packet(2, REMOTE)))
    assert named(trace(packet(1))) == named(trace(packet(2)))
    assert named(trace(packet())) != named(trace(packet(src=REMOTE)))
    assert plain(trace(packet()[:40])) is None
    assert plain(b"\x81{}") is None
