"""Kernel tables as rows of columns, and as what ``-o json`` prints. Pure.

The texts are those that people's scripts already cut; a field we do not have is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cli import drop_reasons
from cli.output import place_text
from datapath.encoding import BackendRow, ConntrackEntry
from datapath.inspect import BackendLine, EndpointLine, ServiceLine
from datapath.metrics import Counter
from model.address import Address, Prefix
from model.ipcache import IpcacheEntry
from model.service import BackendState, Protocol
from wire.bpf.layouts import ConntrackFlags, ConntrackScope

IPCACHE_HEADER = ("IP PREFIX/ADDRESS", "IDENTITY")
ENDPOINT_HEADER = ("IP ADDRESS", "LOCAL ENDPOINT INFO")
LB_HEADER = ("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)")
METRICS_HEADER = ("REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE")

Texts = dict[str, list[str]]  # address -> what is said about it
_DIRECTIONS: dict[int, str] = {
    ConntrackScope.CONNTRACK_EGRESS: "OUT",
    ConntrackScope.CONNTRACK_INGRESS: "IN",
    ConntrackScope.CONNTRACK_SERVICE: "SVC",
}
_FLAGS: dict[int, str] = {
    ConntrackFlags.CONNTRACK_RX_CLOSING: "RxClosing",
    ConntrackFlags.CONNTRACK_TX_CLOSING: "TxClosing",
    ConntrackFlags.CONNTRACK_SEEN_NON_SYN: "SeenNonSyn",
    ConntrackFlags.CONNTRACK_LOOPBACK: "LBLoopback",
    ConntrackFlags.CONNTRACK_FROM_TUNNEL: "FromTunnel",
    ConntrackFlags.CONNTRACK_CLUSTER_REPLY: "ClusterReply",
}
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


def rows(header: tuple[str, ...], texts: Texts) -> list[list[str]]:
    """One row per text."""
    return [list(header), *([key, text] for key, values in texts.items() for text in values)]


def ipcache(found: Mapping[Prefix, IpcacheEntry]) -> Texts:
    """``bpf ipcache list``."""
    return {str(prefix): [_ipcache_entry(entry)] for prefix, entry in found.items()}


def _ipcache_entry(entry: IpcacheEntry) -> str:
    endpoint = entry.tunnel_endpoint or "0.0.0.0"
    cluster = f" cluster={entry.cluster_id}" if entry.cluster_id else ""
    return (
        f"identity={entry.identity} encryptkey={entry.encrypt_key} "
        f"tunnelendpoint={endpoint} flags=<none>{cluster}"
    )


def endpoints(found: Iterable[EndpointLine]) -> Texts:
    """``bpf endpoint list``. Pods have no port of their own here: it reads 0."""
    return {f"{line.address}:0": [_endpoint(line)] for line in found}


def _endpoint(line: EndpointLine) -> str:
    if line.host:
        return "(localhost)"
    return (
        f"id={line.endpoint_id} sec_id={line.identity} flags=0x0000 ifindex={line.ifindex} "
        f"mac={line.mac.hex(':').upper()} nodemac={line.node_mac.hex(':').upper()}"
    )


def _protocol(protocol: Protocol | None) -> str:
    return "ANY" if protocol is None else protocol.name


def services(found: Iterable[ServiceLine], frontends_only: bool = False) -> Texts:
    """``bpf lb list``: the frontend's own row, then a row per slot."""
    texts: Texts = {}
    for line in found:
        front = line.frontend
        place = place_text(str(front.address), front.port, _protocol(front.protocol))
        any_place = "[::]:0" if front.address.version == 6 else "0.0.0.0:0"
        texts[f"{place} (0)"] = [f"{any_place} ({line.revnat_id}) (0) [{_words(line)}]"]
        if frontends_only:
            continue
        for backend in line.backends:
            texts[f"{place} ({backend.slot})"] = [_slot(backend, line.revnat_id)]
    return texts


def _words(line: ServiceLine) -> str:
    words = ["ClusterIP"]
    if line.affinity_timeout_s:
        words.append("sessionAffinity")
    words.append("non-routable")
    if line.maglev:
        words.append("maglev")
    return ", ".join(words)


def _slot(backend: BackendLine, revnat_id: int) -> str:
    if backend.address is None:
        return f"backend {backend.backend_id} not found"
    place = place_text(str(backend.address), backend.port, _protocol(backend.protocol))
    text = f"{place} ({revnat_id}) ({backend.slot})"
    words = []
    if backend.state not in (None, BackendState.ACTIVE):
        words.append(backend.state.name.lower())
    if not backend.selectable:
        words.append("not for new connections")
    return f"{text} [{', '.join(words)}]" if words else text


def backends(found: Mapping[int, BackendRow]) -> Texts:
    """``bpf lb list --backends``."""
    return {
        str(number): [
            f"{place_text(str(row.address), row.port, _protocol(row.protocol))} "
            f"({row.state.name.lower()})" + (f" cluster={row.cluster_id}" if row.cluster_id else "")
        ]
        for number, row in found.items()
    }


def reverse_translations(found: Mapping[int, tuple[Address, int]]) -> Texts:
    """``bpf lb list --revnat``."""
    return {
        str(number): [f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"]
        for number, (address, port) in found.items()
    }


def flow(entry: ConntrackEntry, now_s: int | None) -> str:
    """One line of ``bpf ct list``. With ``now_s`` (monotonic) the time that is left is shown."""
    expires = f"expires={entry.expires_s}"
    if now_s is not None:
        left = entry.expires_s - now_s
        expires += f" (remaining: {left} sec(s))" if left >= 0 else f" (expired {-left} sec(s) ago)"
    words = [name for flag, name in _FLAGS.items() if entry.flags & flag]
    return (
        f"{_PROTOCOLS.get(entry.protocol, entry.protocol)} {_DIRECTIONS.get(entry.scope, '?')} "
        f"{_side(entry.source, entry.source_port)} -> "
        f"{_side(entry.destination, entry.destination_port)} {expires} "
        f"Packets={entry.packets} Bytes={entry.bytes} "
        f"RxFlagsSeen=0x{entry.rx_tcp_flags:02x} TxFlagsSeen=0x{entry.tx_tcp_flags:02x} "
        f"Flags=0x{entry.flags:04x} [ {' '.join([*words, ''])}] RevNAT={entry.revnat_id} "
        f"SourceSecurityID={entry.source_identity} BackendID={entry.backend_id}"
    )


def _side(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def flow_json(entry: ConntrackEntry) -> dict[str, Any]:
    """One entry of ``bpf ct list -o json``."""
    return {
        "protocol": _PROTOCOLS.get(entry.protocol, str(entry.protocol)),
        "direction": _DIRECTIONS.get(entry.scope, "?"),
        "source": str(entry.source),
        "source-port": entry.source_port,
        "destination": str(entry.destination),
        "destination-port": entry.destination_port,
        "expires": entry.expires_s,
        "packets": entry.packets,
        "bytes": entry.bytes,
        "rx-flags-seen": entry.rx_tcp_flags,
        "tx-flags-seen": entry.tx_tcp_flags,
        "flags": [name for flag, name in _FLAGS.items() if entry.flags & flag],
        "revnat": entry.revnat_id,
        "source-security-id": entry.source_identity,
        "backend-id": entry.backend_id,
    }


def counters(found: Iterable[Counter]) -> list[list[str]]:
    """``bpf metrics list``."""
    return [
        list(METRICS_HEADER),
        *(
            [
                drop_reasons.reason(c.reason),
                drop_reasons.direction(c.direction),
                str(c.packets),
                str(c.bytes),
                str(c.line),
                drop_reasons.file(c.file),
            ]
            for c in found
        ),
    ]


def counter_json(counter: Counter) -> dict[str, Any]:
    """One entry of ``bpf metrics list -o json``."""
    return {
        "reason": counter.reason,
        "reason-text": drop_reasons.reason(counter.reason),
        "direction": drop_reasons.direction(counter.direction).lower(),
        "packets": counter.packets,
        "bytes": counter.bytes,
        "line": counter.line,
        "file": drop_reasons.file(counter.file),
    }
