"""Kernel tables as text and JSON."""

from pathlib import Path

from cli import bpf_text, drop_reasons, output
from datapath.encoding import BackendRow, ConntrackEntry
from datapath.inspect import BackendLine, EndpointLine, ServiceLine
from datapath.metrics import Counter
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.service import BackendState, Frontend, Protocol
from tests.support.cli import isthmus
from wire.bpf.layouts import DropReason, SourceFile, TrafficDirection

FLOW = ConntrackEntry(
    source=parse_address("10.44.1.9"),
    destination=parse_address("10.44.3.2"),
    source_port=41000,
    destination_port=80,
    protocol=6,
    scope=0,
    packets=5,
    bytes=420,
    expires_s=1000,
    source_identity=NumericIdentity(70123),
    backend_id=0,
    revnat_id=9,
    flags=0x7,
    tx_tcp_flags=0x1B,
    rx_tcp_flags=0x2,
)


def test_ipcache() -> None:
    """Node, key and identity of a prefix; what is on this node has no tunnel endpoint."""
    texts = bpf_text.ipcache(
        {
            parse_prefix("10.44.3.2/32"): IpcacheEntry(
                NumericIdentity(70123), parse_address("192.0.2.8"), 3, 2
            ),
            parse_prefix("10.44.1.0/24"): IpcacheEntry(NumericIdentity(2)),
        }
    )
    assert texts == {
        "10.44.3.2/32": [
            "identity=70123 encryptkey=3 tunnelendpoint=192.0.2.8 flags=<none> cluster=2"
        ],
        "10.44.1.0/24": ["identity=2 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>"],
    }
    first = output.table(bpf_text.rows(bpf_text.IPCACHE_HEADER, texts)).splitlines()[0]
    assert first == "IP PREFIX/ADDRESS   IDENTITY"


def test_endpoints() -> None:
    """A pod's interface and addresses; the host's own address is the local host."""
    pod = EndpointLine(
        parse_address("10.44.1.9"), 212, 70123, 14, bytes(range(6)), bytes(range(10, 16)), False
    )
    host = EndpointLine(parse_address("192.0.2.1"), 0, 1, 0, bytes(6), bytes(6), True)
    assert bpf_text.endpoints([pod, host]) == {
        "10.44.1.9:0": [
            "id=212 sec_id=70123 flags=0x0000 ifindex=14 "
            "mac=00:01:02:03:04:05 nodemac=0A:0B:0C:0D:0E:0F"
        ],
        "192.0.2.1:0": ["(localhost)"],
    }


def _line(**terms: object) -> ServiceLine:
    active = BackendLine(
        1,
        7,
        True,
        parse_address("10.44.1.17"),
        80,
        Protocol.TCP,
        BackendState.ACTIVE,
        0,
    )
    ending = BackendLine(
        2, 8, False, parse_address("fd00::2"), 80, Protocol.TCP, BackendState.TERMINATING, 2
    )
    lost = BackendLine(3, 9, True, None, 0, None, None, 0)
    values = {
        "frontend": Frontend(parse_address("10.201.7.70"), 8080, Protocol.TCP),
        "revnat_id": 9,
        "selectable": 1,
        "affinity_timeout_s": 0,
        "maglev": False,
        "backends": (active, ending, lost),
        **terms,
    }
    return ServiceLine(**values)


def test_services() -> None:
    """The frontend's row, then one row per slot; a backend without a row is told."""
    assert bpf_text.services([_line()]) == {
        "10.201.7.70:8080/TCP (0)": ["0.0.0.0:0 (9) (0) [ClusterIP, non-routable]"],
        "10.201.7.70:8080/TCP (1)": ["10.44.1.17:80/TCP (9) (1)"],
        "10.201.7.70:8080/TCP (2)": [
            "[fd00::2]:80/TCP (9) (2) [terminating, not for new connections]"
        ],
        "10.201.7.70:8080/TCP (3)": ["backend 9 not found"],
    }


def test_service_words() -> None:
    """Affinity and Maglev are shown; --frontends leaves the slots out."""
    line = _line(affinity_timeout_s=10800, maglev=True)
    assert bpf_text.services([line], frontends_only=True) == {
        "10.201.7.70:8080/TCP (0)": [
            "0.0.0.0:0 (9) (0) [ClusterIP, sessionAffinity, non-routable, maglev]"
        ]
    }


def test_backends_and_reverse_translations() -> None:
    """By number, of both families; a remote backend names its cluster."""
    rows = {
        3: BackendRow(
            parse_address("10.4.0.1"), 80, Protocol.UDP, BackendState.QUARANTINED, ClusterId(2)
        )
    }
    assert bpf_text.backends(rows) == {"3": ["10.4.0.1:80/UDP (quarantined) cluster=2"]}
    pairs = {1: (parse_address("10.96.0.1"), 443), 2: (parse_address("fd00::1"), 53)}
    assert bpf_text.reverse_translations(pairs) == {"1": ["10.96.0.1:443"], "2": ["[fd00::1]:53"]}


def test_a_flow() -> None:
    """One line per entry, in the order of the packet that opened it."""
    assert bpf_text.flow(FLOW, None) == (
        "TCP OUT 10.44.1.9:41000 -> 10.44.3.2:80 expires=1000 Packets=5 Bytes=420 "
        "RxFlagsSeen=0x02 TxFlagsSeen=0x1b Flags=0x0007 [ RxClosing TxClosing SeenNonSyn ] "
        "RevNAT=9 SourceSecurityID=70123 BackendID=0"
    )
    assert "expires=1000 (remaining: 40 sec(s))" in bpf_text.flow(FLOW, 960)
    assert "expires=1000 (expired 5 sec(s) ago)" in bpf_text.flow(FLOW, 1005)


def test_a_flow_as_json() -> None:
    """Flags by name, so that nobody must decode bits."""
    found = bpf_text.flow_json(FLOW)
    assert found["flags"] == ["RxClosing", "TxClosing", "SeenNonSyn"]
    assert (found["source"], found["direction"], found["revnat"]) == ("10.44.1.9", "OUT", 9)


def test_counters() -> None:
    """A drop names its reason, direction and place; what was forwarded has no place."""
    rows = bpf_text.counters(
        [
            Counter(0, TrafficDirection.DIRECTION_EGRESS, 0, 0, 10, 900),
            Counter(
                DropReason.DROP_NO_BACKEND,
                TrafficDirection.DIRECTION_SERVICE,
                SourceFile.SOURCE_SERVICE,
                88,
                2,
                120,
            ),
        ]
    )
    assert rows[1:] == [
        ["Forwarded", "EGRESS", "10", "900", "0", ""],
        ["Service without backend", "SERVICE", "2", "120", "88", "service"],
    ]


def test_every_number_of_the_programs_has_words() -> None:
    """No reason, direction or file that the programs know is unknown here; others are told."""
    reasons = [drop_reasons.reason(number) for number in DropReason]
    assert len(set(reasons)) == len(DropReason)
    assert not [text for text in reasons if text.startswith("Unknown (")]
    assert drop_reasons.reason(255) == "Unknown (255)"
    assert drop_reasons.direction(TrafficDirection.DIRECTION_INGRESS) == "INGRESS"
    assert drop_reasons.direction(9) == "UNKNOWN"
    files = [drop_reasons.file(number) for number in SourceFile if number]
    assert len(set(files)) == len(SourceFile) - 1
    assert all(files)
    assert drop_reasons.file(200) == "200"


def test_maps_that_are_not_there(tmp_path: Path) -> None:
    """One line names the map and asks the right question; exit 1."""
    for table in ("ipcache", "lb", "ct", "endpoint", "metrics"):
        result = isthmus("bpf", table, "list", "--pin-dir", tmp_path)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith(f"Error: map {tmp_path}/maps/ist_")
        assert result.err.endswith("does not exist: has the agent run on this node?\n")
