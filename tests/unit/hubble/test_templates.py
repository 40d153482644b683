"""A decoder that has seen much tells of each record what one that has seen nothing tells."""

from collections import Counter

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet

from hubble.decode import Decoder
from hubble.ring import Entry
from tests.support.hubble_records import (
    AT,
    CLIENT,
    CLIENT_ID,
    REMOTE,
    SERVER,
    SERVER_ID,
    VIP,
    drop,
    some_names,
    trace,
    verdict,
)
from wire.hubble import flow_pb2 as f
from wire.names import EndpointLine, FrontendLine, Self

SALT = b"saltsalt"
FLAGS = st.sampled_from(["S", "SA", "A", "FA"])
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def headers() -> st.SearchStrategy[Packet]:
    ports = {"sport": st.sampled_from([0, 80, 40000]), "dport": st.sampled_from([0, 80, 443])}
    four = st.sampled_from([CLIENT, SERVER, REMOTE, VIP])
    network = st.one_of(
        st.builds(IP, src=four, dst=four, frag=st.sampled_from([0, 0, 0, 5])),
        st.builds(IP, src=four, dst=four, options=st.just(b"\x01\x01\x01\x01")),
        st.builds(IPv6, src=st.just("fd00:1::10"), dst=st.sampled_from(["fd00:1::10", "fd00::9"])),
    )
    transport = st.one_of(
        st.builds(TCP, flags=FLAGS, **ports),
        st.builds(UDP, **ports),
        st.builds(SCTP, **ports),
        st.just(ICMP()),
    )
    return st.builds(lambda n, t: ETHER / n / t, network, transport) | st.just(ETHER / ARP())


def records() -> st.SearchStrategy[bytes]:
    whole = headers().map(bytes)
    packets = whole | st.builds(lambda p, n: p[:n], whole, st.integers(0, 60))
    identities = st.sampled_from([0, 2, CLIENT_ID, SERVER_ID])
    return st.one_of(
        st.builds(
            trace,
            packets,
            point=st.sampled_from([0, 4, 5]),
            reason=st.sampled_from([0, 1, 2, 5, 8, 0x80]),
            endpoint=st.sampled_from([0, 11, 22]),
            source=identities,
            destination=identities,
            original=st.sampled_from([bytes(16), bytes((10, 1, 0, 10)) + bytes(12)]),
            ifindex=st.sampled_from([0, 7]),
        ),
        st.builds(drop, packets, reason=st.sampled_from([133, 181])),
        st.builds(verdict, packets, result=st.sampled_from([0, -133, -181]), ingress=st.booleans()),
    )


def alike() -> st.SearchStrategy[bytes]:
    """Of one connection or its neighbours, often with nothing between them but ports or flags."""
    tcp = st.builds(TCP, sport=st.sampled_from([1, 2]), dport=st.just(80), flags=FLAGS)
    udp = st.builds(UDP, sport=st.sampled_from([1, 2]), dport=st.just(80))
    network = st.builds(IP, src=st.just(CLIENT), dst=st.sampled_from([SERVER, VIP]))
    packets = st.builds(lambda n, t: bytes(ETHER / n / t), network, tcp | udp)
    return st.builds(trace, packets, reason=st.sampled_from([0, 2]))


def changes() -> st.SearchStrategy[Self | EndpointLine | FrontendLine]:
    """What is told between two records."""
    return st.one_of(
        st.builds(Self, st.just("west"), st.sampled_from(["node-1", "node-2"]), st.just(())),
        st.builds(
            EndpointLine,
            id=st.just(11),
            addresses=st.sampled_from([(CLIENT,), (REMOTE,)]),
            identity=st.just(CLIENT_ID),
            namespace=st.just("default"),
            pod=st.sampled_from(["client-a", "client-b"]),
            labels=st.just(()),
        ),
        st.builds(
            FrontendLine,
            address=st.just(VIP),
            port=st.sampled_from([80, 443]),
            protocol=st.sampled_from([6, 17]),
            namespace=st.just("shop"),
            name=st.sampled_from(["web", "other"]),
        ),
    )


def singular_fields(wire: bytes) -> list[int]:
    """How often each field stands in a flow, of those that may stand there once."""
    fields = UnknownFieldSet(Empty.FromString(wire))
    counted = Counter(fields[place].field_number for place in range(len(fields)))
    by_number = f.Flow.DESCRIPTOR.fields_by_number
    return [count for number, count in counted.items() if not by_number[number].is_repeated]


Step = tuple[bytes | Self | EndpointLine | FrontendLine, int]


@settings(max_examples=60)
@given(st.lists(st.tuples(records() | alike() | alike() | changes(), st.sampled_from([0, 35]))))
def test_as_if_each_record_were_the_first(steps: list[Step]) -> None:
    """Also while names change, and for records that are older than the names."""
    names = some_names()
    used = Decoder(names, SALT)
    at_ns = AT
    for number, (one, older_ns) in enumerate(steps):
        at_ns += 10
        if not isinstance(one, bytes):
            names.apply(one, at_ns)
            continue
        entry = Entry(number, at_ns - older_ns, one)
        flow = Decoder(names, SALT).decode(entry)
        assert used.decode(entry) == flow
        wire = used.wire(entry)
        if wire is None:
            assert flow is None
            continue
        assert f.Flow.FromString(wire) == flow
        assert set(singular_fields(wire)) == {1}


def test_an_event_from_before_a_change_is_told_with_the_names_of_its_time() -> None:
    names = some_names()
    decoder = Decoder(names, SALT)
    record = trace(bytes(ETHER / IP(src=CLIENT, dst=SERVER) / TCP(sport=40000, dport=80)))
    renamed = EndpointLine(11, (CLIENT,), CLIENT_ID, "default", "client-b", ())
    pods = []
    for number, (at_ns, line) in enumerate([(AT, renamed), (AT + 20, None), (AT, None)]):
        flow = decoder.decode(Entry(number, at_ns, record))
        assert isinstance(flow, f.Flow)
        pods.append(flow.source.pod_name)
        if line is not None:
            names.apply(line, AT + 10)
    assert pods == ["client-6d4f-x", "client-b", "client-6d4f-x"]


def test_a_device_gets_a_name() -> None:
    decoder = Decoder(some_names(), SALT)
    record = trace(bytes(ETHER / IP(src=CLIENT, dst=SERVER) / TCP(sport=40000, dport=80)))
    for number, name in enumerate(("", "lxc22", "lxc23")):
        if name:
            decoder.name_interfaces({7: name})
        flow = decoder.decode(Entry(number, AT, record))
        assert isinstance(flow, f.Flow)
        assert flow.interface.name == name
