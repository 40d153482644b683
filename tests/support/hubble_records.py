"""Records as the programs write them, and names for what is in them."""

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from hubble.names import Names
from wire.bpf import layouts as w
from wire.names import (
    EndpointLine,
    FrontendLine,
    IdentityLine,
    PrefixLine,
    RuleLine,
    Self,
    Workload,
)

CLUSTER = "k8s:io.cilium.k8s.policy.cluster="
CLIENT, SERVER, REMOTE, VIP, OUT = "10.1.0.10", "10.1.0.20", "10.2.0.30", "10.96.0.5", "203.0.113.9"
CLIENT_ID, SERVER_ID, REMOTE_ID = 65546, 65556, 131102
DROP, TRACE, VERDICT, TRANSLATION = 1, 4, 5, 7
AT = 1_700_000_000_123_456_789


def some_names() -> Names:
    """Two pods of this node, one of another cluster, a service and a rule."""
    found = Names()
    for line in (
        Self("west", "node-1", ("zone=a",)),
        EndpointLine(
            id=11,
            addresses=(CLIENT, "fd00:1::10"),
            identity=CLIENT_ID,
            namespace="default",
            pod="client-6d4f-x",
            labels=("k8s:app=client", CLUSTER + "west"),
            workload=Workload("client", "Deployment"),
        ),
        EndpointLine(
            id=22,
            addresses=(SERVER,),
            identity=SERVER_ID,
            namespace="shop",
            pod="server-0",
            labels=("k8s:app=server", CLUSTER + "west"),
        ),
        IdentityLine(id=REMOTE_ID, labels=("k8s:app=far", CLUSTER + "east")),
        PrefixLine(prefix=f"{REMOTE}/32", identity=REMOTE_ID, namespace="shop", pod="far-0"),
        FrontendLine(address=VIP, port=80, protocol=6, namespace="shop", name="web"),
        RuleLine(
            number=5,
            policy="CiliumNetworkPolicy",
            namespace="shop",
            name="allow-client",
            labels=("k8s:io.cilium.k8s.policy.name=allow-client",),
            revision=3,
            log="asked for by accounting",
        ),
    ):
        found.apply(line, 1)
    return found


def tcp(src: str = CLIENT, dst: str = SERVER, flags: str = "S") -> bytes:
    return bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=src, dst=dst)
        / TCP(sport=40000, dport=80, flags=flags)
    )


def header(kind: int, subtype: int, endpoint: int, packet: bytes) -> bytes:
    return w.EVENT_HEADER.pack(kind, subtype, endpoint, 0, len(packet), min(len(packet), 128), 1)


def trace(
    packet: bytes,
    point: int = 0,
    reason: int = 0,
    endpoint: int = 22,
    source: int = CLIENT_ID,
    destination: int = SERVER_ID,
    original: bytes = bytes(16),
    ifindex: int = 7,
) -> bytes:
    event = w.TraceEvent(
        header(TRACE, point, endpoint, packet), source, destination, 0, reason, 0, ifindex, original
    )
    return event.pack() + packet[:128]


def drop(packet: bytes, reason: int = 133, endpoint: int = 22, destination: int = 22) -> bytes:
    event = w.DropEvent(
        header(DROP, reason, endpoint, packet), CLIENT_ID, SERVER_ID, destination, 77, 13, 0, 7
    )
    return event.pack() + packet[:128]


def verdict(
    packet: bytes, result: int = 0, ingress: bool = True, audited: bool = False, rule: int = 5
) -> bytes:
    flags = (1 if ingress else 2) | 2 << 3 | (0x40 if audited else 0)
    event = w.PolicyVerdictEvent(
        header(VERDICT, 0, 22 if ingress else 11, packet),
        CLIENT_ID if ingress else SERVER_ID,
        result,
        80,
        6,
        flags,
        0,
        rule >> 16,
        rule & 0xFFFF,
    )
    return event.pack() + packet[:128]
