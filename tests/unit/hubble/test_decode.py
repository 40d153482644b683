"""Records into flows: each kind, and every rule of what is set and what must be absent."""

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP

from hubble.decode import Decoder, Message
from hubble.icmp_names import icmp_text
from hubble.names import Names
from hubble.ring import RECORD_AGENT, Entry, Lost, lost_record
from tests.support.hubble_records import (
    AT,
    CLIENT,
    CLIENT_ID,
    CLUSTER,
    OUT,
    REMOTE,
    REMOTE_ID,
    SERVER,
    SERVER_ID,
    TRANSLATION,
    VIP,
    drop,
    some_names,
    tcp,
    trace,
    verdict,
)
from wire.bpf import layouts as w
from wire.hubble import flow_pb2 as f
from wire.names import EndpointLine


@pytest.fixture
def names() -> Names:
    return some_names()


def decoded(names: Names, record: bytes, number: int = 1) -> Message | None:
    return Decoder(names, b"saltsalt").decode(Entry(number, AT, record))


def flow_of(names: Names, record: bytes) -> f.Flow:
    found = decoded(names, record)
    assert isinstance(found, f.Flow)
    return found


def test_a_trace_between_two_pods_of_a_node(names: Names) -> None:
    """Everything that is known, as the API's JSON has it."""
    decoder = Decoder(names, b"saltsalt")
    decoder.name_interfaces({7: "lxc22"})
    found = decoder.decode(Entry(9, AT, trace(tcp())))
    assert isinstance(found, f.Flow)
    shape = MessageToDict(found, preserving_proto_field_name=True)
    uuid = shape.pop("uuid")
    assert (uuid[14], uuid[19], len(uuid)) == ("4", "8", 36)
    assert shape == {
        "time": "2023-11-14T22:13:20.123456789Z",
        "verdict": "FORWARDED",
        "ethernet": {"source": "02:00:00:00:00:01", "destination": "02:00:00:00:00:02"},
        "IP": {"source": CLIENT, "destination": SERVER, "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 40000, "destination_port": 80, "flags": {"SYN": True}}},
        "source": {
            "ID": 11,
            "identity": CLIENT_ID,
            "namespace": "default",
            "labels": ["k8s:app=client", CLUSTER + "west"],
            "pod_name": "client-6d4f-x",
            "workloads": [{"name": "client", "kind": "Deployment"}],
            "cluster_name": "west",
        },
        "destination": {
            "ID": 22,
            "identity": SERVER_ID,
            "namespace": "shop",
            "labels": ["k8s:app=server", CLUSTER + "west"],
            "pod_name": "server-0",
            "cluster_name": "west",
        },
        "Type": "L3_L4",
        "node_name": "west/node-1",
        "node_labels": ["zone=a"],
        "event_type": {"type": 4},
        "traffic_direction": "INGRESS",
        "trace_observation_point": "TO_ENDPOINT",
        "trace_reason": "NEW",
        "is_reply": False,
        "interface": {"index": 7, "name": "lxc22"},
        "Summary": "TCP Flags: SYN",
    }


def test_a_pod_of_another_cluster_has_its_cluster_and_no_number(names: Names) -> None:
    found = flow_of(names, trace(tcp(dst=REMOTE), point=4, endpoint=11, destination=REMOTE_ID))
    assert found.trace_observation_point == f.TO_OVERLAY
    assert (found.event_type.type, found.event_type.sub_type) == (4, 4)
    far = found.destination
    assert (far.namespace, far.pod_name, far.cluster_name) == ("shop", "far-0", "east")
    assert (far.ID, far.identity, list(far.workloads)) == (0, REMOTE_ID, [])
    assert found.source.cluster_name == "west"
    assert found.traffic_direction == f.EGRESS


@pytest.mark.parametrize(
    ("src", "endpoint", "reason", "direction", "reply"),
    [
        (CLIENT, 22, 0, f.INGRESS, False),  # into the server
        (CLIENT, 11, 1, f.EGRESS, False),  # out of the client
        (SERVER, 22, 2, f.INGRESS, True),  # the server's reply is ingress traffic
        (SERVER, 11, 2, f.EGRESS, True),  # and reaches the client as egress traffic
        (CLIENT, 22, 5, f.TRAFFIC_DIRECTION_UNKNOWN, None),
        (CLIENT, 0, 0, f.TRAFFIC_DIRECTION_UNKNOWN, False),
        (CLIENT, 22, 3, f.INGRESS, False),
    ],
)
def test_direction_is_that_of_the_connection(
    names: Names, src: str, endpoint: int, reason: int, direction: int, reply: bool | None
) -> None:
    dst = SERVER if src == CLIENT else CLIENT
    point = 4 if endpoint == 11 and src == CLIENT else 0
    found = flow_of(names, trace(tcp(src, dst), point, endpoint=endpoint, reason=reason))
    assert found.traffic_direction == direction
    assert found.HasField("is_reply") == (reply is not None)
    if reply is not None:
        assert (found.is_reply.value, found.reply) == (reply, reply)


def test_a_pod_that_reached_itself_is_seen_on_its_receiving_side(names: Names) -> None:
    original = bytes([10, 1, 0, 10]) + bytes(12)
    found = flow_of(
        names, trace(tcp("169.254.42.1", CLIENT), endpoint=11, source=CLIENT_ID, original=original)
    )
    assert (found.IP.source, found.IP.source_xlated) == (CLIENT, "169.254.42.1")
    assert found.source.pod_name == found.destination.pod_name == "client-6d4f-x"
    assert found.traffic_direction == f.INGRESS


def test_an_answer_through_a_service_is_its_backends(names: Names) -> None:
    """The packet has the service's address already; the pod that sent it is known all the same."""
    original = bytes([10, 1, 0, 20]) + bytes(12)
    packet = bytes(ETHER / IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000, flags="SA"))
    found = flow_of(
        names,
        trace(packet, reason=2, endpoint=11, source=SERVER_ID, original=original),
    )
    assert (found.IP.source, found.IP.source_xlated) == (SERVER, VIP)
    assert (found.source.pod_name, found.source_service.name) == ("server-0", "web")
    assert found.destination.pod_name == "client-6d4f-x"
    assert (found.traffic_direction, found.is_reply.value) == (f.EGRESS, True)


def test_an_encrypted_packet_is_told_so(names: Names) -> None:
    found = flow_of(names, trace(tcp(), reason=0x80 | 1))
    assert found.IP.encrypted
    assert found.trace_reason == f.ESTABLISHED


def test_a_drop_has_a_reason_a_place_and_no_reply(names: Names) -> None:
    found = flow_of(names, drop(tcp()))
    assert found.verdict == f.DROPPED
    assert (found.drop_reason, found.drop_reason_desc) == (133, f.POLICY_DENIED)
    assert (found.event_type.type, found.event_type.sub_type) == (1, 133)
    assert (found.file.name, found.file.line) == ("policy.h", 77)
    assert not found.HasField("is_reply")
    assert found.traffic_direction == f.INGRESS
    assert flow_of(names, drop(tcp(), endpoint=11, destination=0)).traffic_direction == f.EGRESS
    assert flow_of(names, drop(tcp(), endpoint=0, destination=0)).traffic_direction == 0
    assert not found.ingress_denied_by


def test_a_drop_of_half_a_packet_is_shown_with_what_there_is(names: Names) -> None:
    """Malformed packets are the ones that somebody looks for."""
    found = flow_of(names, drop(tcp()[:40], reason=134))
    assert found.drop_reason_desc == f.INVALID_PACKET_DROPPED
    assert found.source.identity == CLIENT_ID


@pytest.mark.parametrize("ingress", [True, False])
def test_an_allowed_connection_names_the_policy(names: Names, ingress: bool) -> None:
    found = flow_of(names, verdict(tcp(), ingress=ingress))
    assert found.verdict == f.FORWARDED
    assert found.traffic_direction == (f.INGRESS if ingress else f.EGRESS)
    assert found.is_reply.value is False
    assert found.HasField("is_reply")
    assert found.policy_match_type == w.PolicyMatch.MATCH_L3_L4
    told = found.ingress_allowed_by if ingress else found.egress_allowed_by
    (policy,) = told
    assert (policy.kind, policy.namespace, policy.name) == (
        "CiliumNetworkPolicy",
        "shop",
        "allow-client",
    )
    assert (list(policy.labels), policy.revision) == (
        ["k8s:io.cilium.k8s.policy.name=allow-client"],
        3,
    )
    assert list(found.policy_log) == ["asked for by accounting"]
    others = found.egress_allowed_by if ingress else found.ingress_allowed_by
    assert not [*others, *found.ingress_denied_by, *found.egress_denied_by]
    assert (found.source.pod_name, found.destination.pod_name) == ("client-6d4f-x", "server-0")


def test_default_deny_is_told_apart_from_a_denying_rule(names: Names) -> None:
    by_rule = flow_of(names, verdict(tcp(), result=-181))
    assert (by_rule.verdict, by_rule.drop_reason_desc) == (f.DROPPED, f.POLICY_DENY)
    assert [policy.name for policy in by_rule.ingress_denied_by] == ["allow-client"]
    assert list(by_rule.policy_log) == ["asked for by accounting"]
    assert not by_rule.HasField("is_reply")
    by_default = flow_of(names, verdict(tcp(), result=-133, rule=0))
    assert by_default.drop_reason_desc == f.POLICY_DENIED
    assert not by_default.ingress_denied_by


def test_audit_passes_and_names_nobody(names: Names) -> None:
    found = flow_of(names, verdict(tcp(), audited=True))
    assert found.verdict == f.AUDIT
    assert not found.ingress_allowed_by
    assert found.is_reply.value is False


def test_a_rule_that_nobody_told_of_is_left_out(names: Names) -> None:
    assert not flow_of(names, verdict(tcp(), rule=70001)).ingress_allowed_by


@pytest.mark.parametrize(
    ("point", "expected", "address"), [(1, f.TRACED, VIP), (2, f.TRANSLATED, SERVER)]
)
def test_a_translation_before_and_after(
    names: Names, point: int, expected: int, address: str
) -> None:
    packed = bytes(map(int, address.split("."))) + bytes(12)
    source = bytes(map(int, CLIENT.split("."))) + bytes(12)
    record = w.TranslationEvent(
        TRANSLATION, point, packed, 80, 4711, 0, 1, 0, source, 40000, 11, CLIENT_ID
    ).pack()
    found = flow_of(names, record)
    assert (found.verdict, found.Type, found.sock_xlate_point) == (expected, f.SOCK, point)
    assert (found.event_type.type, found.event_type.sub_type) == (7, point)
    assert (found.IP.source, found.IP.destination) == (CLIENT, address)
    assert found.source.pod_name == "client-6d4f-x"
    assert found.destination_service.name == ("web" if address == VIP else "")
    assert found.destination.identity == (2 if address == VIP else SERVER_ID)
    assert (found.socket_cookie, found.Summary) == (4711, "TCP")
    assert not found.HasField("is_reply")
    assert found.traffic_direction == f.TRAFFIC_DIRECTION_UNKNOWN


@pytest.mark.parametrize(
    ("point", "expected", "address"), [(3, f.TRACED, SERVER), (4, f.TRANSLATED, VIP)]
)
def test_the_translation_of_an_answer(
    names: Names, point: int, expected: int, address: str
) -> None:
    """From the other side to the client; the service stands where it answers from."""
    packed = bytes(map(int, address.split("."))) + bytes(12)
    client = bytes(map(int, CLIENT.split("."))) + bytes(12)
    record = w.TranslationEvent(
        TRANSLATION, point, packed, 80, 0, 0, 1, 0, client, 40000, 11, CLIENT_ID
    ).pack()
    found = flow_of(names, record)
    assert (found.verdict, found.Type, found.sock_xlate_point) == (expected, f.SOCK, point)
    assert (found.IP.source, found.IP.destination) == (address, CLIENT)
    assert (found.l4.TCP.source_port, found.l4.TCP.destination_port) == (80, 40000)
    assert (found.destination.pod_name, found.destination.identity) == (
        "client-6d4f-x",
        CLIENT_ID,
    )
    assert found.source_service.name == ("web" if address == VIP else "")
    assert not found.HasField("destination_service")
    assert not found.HasField("is_reply")


def test_a_stranger_is_the_world_and_the_datapaths_identity_comes_first(names: Names) -> None:
    found = flow_of(names, trace(tcp(dst=OUT), point=3, endpoint=11, destination=0))
    assert (found.destination.identity, list(found.destination.labels)) == (2, ["reserved:world"])
    other = flow_of(names, trace(tcp(), source=REMOTE_ID))
    assert other.source.identity == REMOTE_ID
    assert list(other.source.labels) == ["k8s:app=far", CLUSTER + "east"]


def test_names_are_those_of_the_time_of_the_packet(names: Names) -> None:
    decoder = Decoder(names, b"saltsalt")
    before = decoder.decode(Entry(1, AT, trace(tcp())))
    names.apply(EndpointLine(id=22, gone=True), AT + 10)
    names.apply(EndpointLine(id=23, addresses=(SERVER,), pod="other", identity=9), AT + 20)
    again = decoder.decode(Entry(1, AT, trace(tcp())))
    assert again == before
    later = decoder.decode(Entry(2, AT + 30, trace(tcp(), destination=9)))
    assert isinstance(later, f.Flow)
    assert later.destination.pod_name == "other"


GONE = "DestinationUnreachable"
ALL_FLAGS = "TCP Flags: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR, NS"
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


@pytest.mark.parametrize(
    ("packet", "summary", "protocol"),
    [
        (IP() / UDP(), "UDP", "UDP"),
        (IP(proto=132) / SCTP(sport=1, dport=2), "SCTP", "SCTP"),
        (IP() / ICMP(type=8), "ICMPv4 EchoRequest", "ICMPv4"),
        (IP() / ICMP(type=0), "ICMPv4 EchoReply", "ICMPv4"),
        (IP() / ICMP(type=3, code=4), f"ICMPv4 {GONE}(FragmentationNeeded)", "ICMPv4"),
        (IPv6() / ICMPv6EchoRequest(), "ICMPv6 EchoRequest", "ICMPv6"),
        (IPv6() / ICMPv6DestUnreach(code=4), f"ICMPv6 {GONE}(PortUnreachable)", "ICMPv6"),
        (IPv6() / TCP(flags="SAFRPUECN"), ALL_FLAGS, "TCP"),
        (IP(proto=112) / bytes([0x21, 7, 100, 0, 0, 0, 0, 0]), "VRRP", "VRRP"),
        (IP(proto=2) / bytes([0x16, 0, 0, 0, 224, 0, 0, 9]), "IGMP", "IGMP"),
        (IP(proto=99) / b"x", "IPv4", None),
        (IP(frag=5, proto=6) / b"x", "IPv4", None),
        (IPv6(nh=99) / b"x", "IPv6", None),
        (ARP(), "Ethernet", None),
    ],
)  # fmt: skip
def test_summaries_of_what_packets_may_be(names, packet, summary, protocol) -> None:
    found = flow_of(names, trace(bytes(ETHER / packet)))
    assert found.Summary == summary
    assert found.l4.WhichOneof("protocol") == protocol


def test_icmp_words() -> None:
    assert icmp_text(4, 8, 3) == "EchoRequest(Code: 3)"
    assert icmp_text(4, 3, 99) == "DestinationUnreachable(Code: 99)"
    assert icmp_text(6, 200, 1) == "200(1)"


def test_losses_and_events_of_the_agent_are_no_flows(names: Names) -> None:
    lost = decoded(names, lost_record(Lost(1, 3, 77)))
    assert isinstance(lost, f.LostEvent)
    assert (lost.source, lost.cpu.value, lost.num_events_lost) == (f.PERF_EVENT_RING_BUFFER, 3, 77)
    told = f.AgentEvent(type=f.AGENT_STARTED)
    found = decoded(names, bytes([RECORD_AGENT]) + told.SerializeToString())
    assert found == told


@pytest.mark.parametrize(
    "record",
    [
        trace(tcp()[:20]),
        trace(b""),
        b"\x04",
        b"\xc8abc",
        b"\xff",
        bytes([RECORD_AGENT]) + b"\xff\xff",
    ],
)
def test_what_cannot_be_read_is_counted(names: Names, record: bytes) -> None:
    decoder = Decoder(names, b"saltsalt")
    assert decoder.decode(Entry(1, AT, record)) is None
    assert decoder.failed == 1


@given(st.sampled_from([1, 4, 5, 7, 129, 130, 255]), st.binary(max_size=200))
def test_no_record_breaks_the_decoder(kind: int, rest: bytes) -> None:
    decoder = Decoder(Names(), b"saltsalt")
    found = decoder.decode(Entry(1, AT, bytes([kind]) + rest))
    assert found is not None or decoder.failed == 1


def test_uuids_differ_by_record_and_process(names: Names) -> None:
    entries = [Entry(n, AT, trace(tcp())) for n in range(1, 50)]
    uuids = set()
    for salt in (b"saltsalt", b"pepperpe"):
        decoder = Decoder(names, salt)
        uuids |= {m.uuid for e in entries if isinstance(m := decoder.decode(e), f.Flow)}
    assert len(uuids) == 98
