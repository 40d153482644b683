"""Hubble's messages are on the wire what other programs of Hubble expect."""

import subprocess
from pathlib import Path

import pytest
from google.protobuf import json_format

from wire.hubble import flow_pb2, observer_pb2, peer_pb2, recorder_pb2, relay_pb2

ROOT = Path(__file__).parents[3]
MODULES = (
    *("flow", "relay", "observer", "peer", "recorder"),
    *("ui", "status", "notifications", "customprotocol"),
)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | str | bytes) -> bytes:
    """One field as the protobuf encoding describes it, made without the library under test."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


SIDE = field(1, 101) + field(2, 21001) + field(3, "shop") + field(4, "k8s:app=cart")
SIDE += field(5, "cart-6c9d") + field(6, field(1, "cart") + field(2, "Deployment"))
SIDE += field(7, "west")
POLICY = field(1, "allow-cart") + field(2, "shop") + field(4, 7) + field(5, "CiliumNetworkPolicy")
FLOW = (
    field(1, field(1, 1750000001) + field(2, 123456789))
    + field(2, 2)
    + field(3, 133)
    + field(5, field(1, "10.1.0.5") + field(2, "10.1.0.9") + field(3, 1))
    + field(6, field(1, field(1, 41001) + field(2, 9090) + field(3, field(2, 1))))
    + field(8, SIDE)
    + field(10, 1)
    + field(11, "west/node-1")
    + field(19, field(1, 1) + field(2, 133))
    + field(22, 1)
    + field(25, 133)
    + field(34, "u3")
    + field(21005, POLICY)
    + field(100000, "TCP Flags: SYN")
)
RESPONSE = field(1, FLOW) + field(1000, "west/node-1") + field(1001, field(1, 1750000001))


def test_stubs_are_up_to_date(tmp_path: Path) -> None:
    """Generating again gives the committed files, byte for byte."""
    subprocess.run([ROOT / "tools" / "gen_hubble_stubs.sh", tmp_path], check=True)
    for name in (f"wire/hubble/{m}_pb2.{kind}" for m in MODULES for kind in ("py", "pyi")):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_a_flow_is_read_and_written_as_its_bytes() -> None:
    """Bytes made from the field numbers alone are the dropped flow, and it gives them again."""
    answer = observer_pb2.GetFlowsResponse.FromString(RESPONSE)
    assert answer.WhichOneof("response_types") == "flow"
    flow = answer.flow
    assert (flow.verdict, flow.drop_reason_desc) == (
        flow_pb2.Verdict.DROPPED,
        flow_pb2.DropReason.POLICY_DENIED,
    )
    assert flow.IP.source == "10.1.0.5"
    assert flow.l4.TCP.flags.SYN
    assert flow.source.workloads[0].kind == "Deployment"
    assert flow.ingress_denied_by[0].name == "allow-cart"
    assert not flow.HasField("is_reply")
    assert flow.Summary == "TCP Flags: SYN"
    assert answer.SerializeToString(deterministic=True) == RESPONSE


def test_json_uses_the_names_of_the_fields() -> None:
    """Snake case and the odd capitals, enum names, 64 bits as text, a false reply is shown."""
    flow = flow_pb2.Flow(
        verdict=flow_pb2.Verdict.TRANSLATED, socket_cookie=55, Type=flow_pb2.FlowType.SOCK
    )
    flow.is_reply.value = False
    flow.IP.ipVersion = flow_pb2.IPVersion.IPv4
    shown = json_format.MessageToDict(flow, preserving_proto_field_name=True)
    assert shown == {
        "verdict": "TRANSLATED",
        "socket_cookie": "55",
        "Type": "SOCK",
        "is_reply": False,
        "IP": {"ipVersion": "IPv4"},
    }


def test_what_a_newer_version_says_is_kept() -> None:
    """Unknown fields and unknown numbers of an enum survive reading and writing."""
    newer = field(2, 99) + field(11, "west/node-1") + field(31000, "new")
    flow = flow_pb2.Flow.FromString(newer)
    assert flow.verdict == 99
    assert flow.node_name == "west/node-1"
    assert flow.SerializeToString(deterministic=True) == newer


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (
            peer_pb2.ChangeNotification(
                name="east/node-9",
                address="192.0.2.9:4244",
                type=peer_pb2.PEER_ADDED,
                tls=peer_pb2.TLS(server_name="node-9.east.hubble-grpc.cilium.io"),
            ),
            field(1, "east/node-9")
            + field(2, "192.0.2.9:4244")
            + field(3, 1)
            + field(4, field(1, "node-9.east.hubble-grpc.cilium.io")),
        ),
        (
            relay_pb2.NodeStatusEvent(state_change=relay_pb2.NODE_ERROR, node_names=["n"]),
            field(1, 4) + field(2, "n"),
        ),
        (
            observer_pb2.GetFlowsRequest(
                number=20,
                whitelist=[flow_pb2.FlowFilter(source_pod=["shop/"], reply=[False])],
            ),
            field(1, 20) + field(6, field(2, "shop/") + field(15, b"\0")),
        ),
        (
            observer_pb2.ServerStatusResponse(max_flows=4095, version="v"),
            field(2, 4095) + field(8, "v"),
        ),
        (
            recorder_pb2.StopCondition(packets_captured_count=3),
            field(2, 3),
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bytes) else "",
)
def test_other_messages_have_the_known_numbers(message, data: bytes) -> None:
    """Each is written as the bytes its numbers say."""
    assert message.SerializeToString(deterministic=True) == data
    assert type(message).FromString(data) == message


def test_services_and_files_have_the_names_that_clients_ask_for() -> None:
    """Paths of the calls, and the names of the files that reflection shows."""
    calls = {
        f"/{service.full_name}/{method.name}"
        for file in (observer_pb2, peer_pb2, recorder_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert calls == {
        "/observer.Observer/GetFlows",
        "/observer.Observer/GetAgentEvents",
        "/observer.Observer/GetDebugEvents",
        "/observer.Observer/GetNodes",
        "/observer.Observer/GetNamespaces",
        "/observer.Observer/ServerStatus",
        "/peer.Peer/Notify",
        "/recorder.Recorder/Record",
    }
    assert observer_pb2.DESCRIPTOR.name == "observer/observer.proto"
    assert [f.name for f in observer_pb2.DESCRIPTOR.public_dependencies] == ["flow/flow.proto"]
