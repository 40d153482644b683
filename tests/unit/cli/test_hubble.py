"""``isthmus hubble`` prints what the ``hubble`` command prints, from a server and from a file."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from cli import hubble_times
from cli.hubble_print import FORMATS
from hubble.peers import Peer, PeerTable
from hubble.ring import Lost, lost_record
from tests.support.cli import Result, isthmus
from tests.support.hubble import MemorySource, flow, observing, record
from wire.hubble import flow_pb2, observer_pb2

GOLDEN = Path(__file__).parents[2] / "golden"
CART = {"identity": 21001, "namespace": "shop", "pod_name": "cart-6c9d"}
PAY = {"identity": 21002, "namespace": "shop", "pod_name": "pay-77f"}
ADDRESSES = {"source": "10.1.0.5", "destination": "10.1.0.9", "ipVersion": "IPv4"}
BACK = {"source": "10.1.0.9", "destination": "10.1.0.5", "ipVersion": "IPv4"}
VERDICT = {"event_type": {"type": 5}, "Summary": "TCP Flags: SYN"}
ALLOWED_BY = [{"name": "allow-cart", "namespace": "shop", "kind": "CiliumNetworkPolicy"}]


def tcp(source: int, destination: int, **flags: bool) -> dict[str, Any]:
    ports = {"source_port": source, "destination_port": destination, "flags": flags}
    return {"TCP": {name: value for name, value in ports.items() if value}}


def there(**fields: Any) -> dict[str, Any]:
    return {"source": CART, "destination": PAY, "IP": ADDRESSES, **fields}


def back(**fields: Any) -> dict[str, Any]:
    return {"source": PAY, "destination": CART, "IP": BACK, "is_reply": True, **fields}


# What the ring holds, and its compact line with policy names (layouts of hubble 1.19.4).
SCENES: list[tuple[dict[str, Any], str]] = [
    (
        there(l4=tcp(41000, 8080), Summary="TCP Flags: SYN"),
        "shop/cart-6c9d:41000 (ID:21001) -> shop/pay-77f:8080 (ID:21002) to-endpoint FORWARDED "
        "(TCP Flags: SYN)",
    ),
    (
        back(
            l4=tcp(8080, 41000),
            event_type={"type": 4, "sub_type": 3},
            Summary="TCP Flags: SYN, ACK",
        ),
        "shop/cart-6c9d:41000 (ID:21001) <- shop/pay-77f:8080 (ID:21002) to-stack FORWARDED "
        "(TCP Flags: SYN, ACK)",
    ),
    (
        there(
            l4=tcp(41001, 9090),
            verdict="DROPPED",
            event_type={"type": 1, "sub_type": 133},
            is_reply=None,
            Summary="TCP Flags: SYN",
        ),
        "shop/cart-6c9d:41001 (ID:21001) <> shop/pay-77f:9090 (ID:21002) Policy denied DROPPED "
        "(TCP Flags: SYN)",
    ),
    (
        there(
            **VERDICT,
            l4=tcp(41002, 8080),
            policy_match_type=2,
            traffic_direction="INGRESS",
            ingress_allowed_by=ALLOWED_BY,
        ),
        "shop/cart-6c9d:41002 (ID:21001) -> shop/pay-77f:8080 (ID:21002) "
        "policy-verdict:L3-L4 INGRESS ALLOWED BY allow-cart (CiliumNetworkPolicy) (TCP Flags: SYN)",
    ),
    (
        there(
            **VERDICT,
            l4=tcp(41003, 9090),
            verdict="DROPPED",
            is_reply=None,
            traffic_direction="INGRESS",
        ),
        "shop/cart-6c9d:41003 (ID:21001) <> shop/pay-77f:9090 (ID:21002) "
        "policy-verdict:none INGRESS DENIED (TCP Flags: SYN)",
    ),
    (
        there(
            event_type={"type": 5},
            l4={"UDP": {"source_port": 5000, "destination_port": 53}},
            verdict="AUDIT",
            policy_match_type=3,
            traffic_direction="EGRESS",
            Summary="UDP",
        ),
        "shop/cart-6c9d:5000 (ID:21001) -> shop/pay-77f:53 (ID:21002) "
        "policy-verdict:L4-Only EGRESS AUDITED (UDP)",
    ),
    (
        there(
            **VERDICT,
            l4=tcp(41004, 80),
            policy_match_type=1,
            traffic_direction="EGRESS",
            auth_type="SPIRE",
        ),
        "shop/cart-6c9d:41004 (ID:21001) -> shop/pay-77f:80 (ID:21002) "
        "policy-verdict:L3-Only EGRESS ALLOWED (TCP Flags: SYN; Auth: SPIRE)",
    ),
    (
        back(
            l4=tcp(80, 41004),
            event_type={"type": 129},
            l7={"type": "RESPONSE", "http": {"code": 200}},
            Summary="HTTP/1.1 200 7ms (GET http://pay.shop/charge)",
        ),
        "shop/cart-6c9d:41004 (ID:21001) <- shop/pay-77f:80 (ID:21002) http-response FORWARDED "
        "(HTTP/1.1 200 7ms (GET http://pay.shop/charge))",
    ),
    (
        there(
            l4={"UDP": {"source_port": 40000, "destination_port": 53}},
            event_type={"type": 129},
            l7={"type": "REQUEST", "dns": {"observation_source": "proxy"}},
            Summary="DNS Query pay.shop. A",
        ),
        "shop/cart-6c9d:40000 (ID:21001) -> shop/pay-77f:53 (ID:21002) dns-request proxy FORWARDED "
        "(DNS Query pay.shop. A)",
    ),
    (
        there(
            l4=tcp(0, 80),
            destination={"identity": 2},
            destination_service={"name": "pay", "namespace": "shop"},
            verdict="TRACED",
            event_type={"type": 7, "sub_type": 1},
            sock_xlate_point="SOCK_XLATE_POINT_PRE_DIRECTION_FWD",
            is_reply=None,
            Summary="TCP",
        ),
        "shop/cart-6c9d (ID:21001) <> shop/pay:80 (world) pre-xlate-fwd TRACED (TCP)",
    ),
    (
        there(
            l4={"ICMPv4": {"type": 8}},
            destination={"identity": 2},
            destination_names=["api.example.org"],
            event_type={"type": 4, "sub_type": 11},
            Summary="ICMPv4 EchoRequest",
        ),
        "shop/cart-6c9d (ID:21001) -> api.example.org (world) to-network FORWARDED "
        "(ICMPv4 EchoRequest)",
    ),
    (
        {
            "ethernet": {"source": "aa:bb:cc:00:00:01", "destination": "ff:ff:ff:ff:ff:ff"},
            "verdict": "DROPPED",
            "event_type": {"type": 1, "sub_type": 166},
            "is_reply": None,
            "Summary": "Ethernet",
        },
        "aa:bb:cc:00:00:01 (unknown) <> ff:ff:ff:ff:ff:ff (unknown) Unsupported L2 protocol "
        "DROPPED (Ethernet)",
    ),
    (
        there(
            l4=tcp(41010, 80),
            verdict="VERDICT_UNKNOWN",
            event_type={"type": 3, "sub_type": 4},
            debug_capture_point="DBG_CAPTURE_DELIVERY",
            is_reply=None,
            Summary="TCP Flags: ACK",
        ),
        "shop/cart-6c9d:41010 (ID:21001) <> shop/pay-77f:80 (ID:21002) "
        "DBG_CAPTURE_DELIVERY VERDICT_UNKNOWN (TCP Flags: ACK)",
    ),
    (
        there(
            source={"identity": 1},
            IP={"source": "fd00::1", "destination": "fd00::2"},
            destination={},
            l4=tcp(1, 2),
            Summary="evil\x1b[2J\nname",
            ip_trace_id={"trace_id": "7"},
        ),
        "[fd00::1]:1 (host) -> [fd00::2]:2 (unknown) to-endpoint FORWARDED "
        "(IP Trace ID: 7; evil\\x1b[2J\\nname)",
    ),
]


def source_of_scenes() -> MemorySource:
    source = MemorySource()
    for number, (fields, _) in enumerate(SCENES, 1):
        kept = {name: value for name, value in fields.items() if value is not None}
        made = flow(number, **kept)
        if fields.get("is_reply", False) is None:
            made.ClearField("is_reply")
        source.add(record(made))
    return source


async def run(
    tmp_path: Path, source: MemorySource, *arguments: str, peers: PeerTable | None = None
) -> Result:
    """The command against an observer of the source."""
    path = tmp_path / "h.sock"
    async with observing(source, path, peers):
        return await asyncio.to_thread(isthmus, "hubble", *arguments, "--server", f"unix://{path}")


def stamp(number: int) -> str:
    return f"Jun 15 15:06:{40 + number:02d}.000"


async def test_compact_lines(tmp_path: Path) -> None:
    """Every kind of flow; the client on the left; what strangers named is made safe."""
    said = await run(tmp_path, source_of_scenes(), "observe", "--print-policy-names")
    assert (said.code, said.err) == (0, "")
    expected = [f"{stamp(n)}: {line}" for n, (_, line) in enumerate(SCENES, 1)]
    assert said.out.splitlines() == expected


async def test_other_formats(tmp_path: Path) -> None:
    """dict and table never swap sides and show no identities; json is the answer itself."""
    source = MemorySource()
    source.add(record(flow(1, **SCENES[0][0])), record(flow(2, **SCENES[1][0])))
    source.add(lost_record(Lost(source=1, cpu=0, number=3)))
    said = await run(tmp_path, source, "observe", "-o", "dict", "--print-node-name")
    assert said.out.split("------------\n")[0] == (
        f"  TIMESTAMP: {stamp(1)}\n"
        "       NODE: west/node-1\n"
        "     SOURCE: shop/cart-6c9d:41000\n"
        "DESTINATION: shop/pay-77f:8080\n"
        "       TYPE: to-endpoint\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: TCP Flags: SYN\n"
    )
    assert said.out.count("------------\n") == 2
    said = await run(tmp_path, source, "observe", "-o", "table")
    assert said.out == (GOLDEN / "hubble_table.txt").read_text()
    said = await run(tmp_path, source, "observe", "-o", "json")
    first, _, loss = (json.loads(line) for line in said.out.splitlines())
    assert first["flow"]["l4"] == {"TCP": {"source_port": 41000, "destination_port": 8080}}
    assert (first["node_name"], first["time"]) == ("west/node-1", "2025-06-15T15:06:41Z")
    assert loss["lost_events"] == {"source": "PERF_EVENT_RING_BUFFER", "num_events_lost": "3"}
    said = await run(tmp_path, source, "observe", "--first", "1", "--numeric", "--color", "always")
    assert "\x1b[36m10.1.0.5\x1b[0m:\x1b[33m41000\x1b[0m \x1b[35m(ID:21001)\x1b[0m ->" in said.out
    assert "\x1b[32mFORWARDED\x1b[0m" in said.out


@pytest.mark.parametrize("how", FORMATS)
async def test_every_format_takes_every_answer(how: str, tmp_path: Path) -> None:
    """Flows, losses, agent and debug events, in each format, without an error."""
    source = source_of_scenes()
    source.add(lost_record(Lost(1, 0, 3)))
    agent = flow_pb2.AgentEvent(type=flow_pb2.AgentEventType.ENDPOINT_CREATED)
    agent.endpoint_update.id, agent.endpoint_update.namespace = 101, "shop"
    debug = flow_pb2.DebugEvent(type=flow_pb2.DebugEventType.DBG_CT_VERDICT, message="CT verdict")
    debug.cpu.value, debug.hash.value = 3, 0xABC
    source.add(record(agent), record(debug))
    flows = await run(tmp_path, source, "observe", "--all", "-o", how)
    assert (flows.code, flows.err) == (0, "")
    assert "PERF_EVENT_RING_BUFFER" in flows.out
    agents = await run(tmp_path, source, "observe", "agent-events", "-o", how)
    assert "ENDPOINT_CREATED" in agents.out
    debugs = await run(tmp_path, source, "observe", "debug-events", "-o", how)
    assert "CT verdict" in debugs.out
    if how == "compact":
        assert agents.out == "Jun 15 15:06:56.000: ENDPOINT_CREATED (id: 101, namespace: shop)\n"
        assert debugs.out == (
            "Jun 15 15:06:57.000: N/A DBG_CT_VERDICT MARK: 0xabc CPU: 03 (CT verdict)\n"
        )


async def test_selectors_reach_the_server(tmp_path: Path) -> None:
    """Filters, --not, --last, --first, --all, --since and --until select the flows."""
    source = MemorySource()
    source.add_flows(30)
    source.add_flows(1, verdict="DROPPED", event_type={"type": 1})

    async def shown(*arguments: str) -> list[str]:
        said = await run(tmp_path, source, "observe", "-o", "json", *arguments)
        assert said.code == 0, said.err
        return [json.loads(line)["flow"]["uuid"] for line in said.out.splitlines()]

    assert await shown() == [f"u{n}" for n in range(12, 32)]
    assert await shown("--last", "2") == ["u30", "u31"]
    assert await shown("--first", "2") == ["u1", "u2"]
    assert len(await shown("--all")) == 31
    assert await shown("--verdict", "dropped") == ["u31"]
    assert await shown("--last", "1", "--not", "--verdict", "DROPPED") == ["u30"]
    assert await shown("--since", "2025-06-15T15:07:09Z") == ["u29", "u30", "u31"]
    begin, end = "2025-06-15T15:06:43Z", "2025-06-15T15:06:44Z"
    assert await shown("--since", begin, "--until", end) == ["u3", "u4"]
    assert await shown("--last", "1", "--field-mask", "uuid") == ["u31"]
    denied = json.dumps({"verdict": ["DROPPED"]})
    assert await shown("--last", "1", "--denylist", denied) == ["u30"]


RAW = [
    (["-n", "shop"], [{"source_pod": ["shop/"]}, {"destination_pod": ["shop/"]}], []),
    (
        ["-n", "shop", "--pod", "cart"],
        [{"source_pod": ["shop/cart"]}, {"destination_pod": ["shop/cart"]}],
        [],
    ),
    (["-A", "--pod", "cart"], [{"source_pod": ["/cart"]}, {"destination_pod": ["/cart"]}], []),
    (
        ["--from-namespace", "a", "--to-pod", "b/c"],
        [{"source_pod": ["a/"], "destination_pod": ["b/c"]}],
        [],
    ),
    (
        ["--pod", "a", "--port", "80", "--protocol", "tcp"],
        [
            {"source_pod": ["a"], "source_port": ["80"], "protocol": ["tcp"]},
            {"destination_pod": ["a"], "destination_port": ["80"], "protocol": ["tcp"]},
        ],
        [],
    ),
    (
        ["--not", "--to-port", "53", "--not", "--from-label", "a=b", "--from-label", "c"],
        [{"source_label": ["c"]}],
        [{"destination_port": ["53"], "source_label": ["a=b"]}],
    ),
    (["--to-identity", "world"], [{"destination_identity": [2]}], []),
    (["--workload", "Deployment/cart", "--from-all-namespaces"], None, None),
    (
        ["-t", "trace:to-network", "-t", "l7", "--type", "drop:133"],
        [
            {
                "event_type": [
                    {"type": 4, "match_sub_type": True, "sub_type": 11},
                    {"type": 129},
                    {"type": 1, "match_sub_type": True, "sub_type": 133},
                ]
            }
        ],
        [],
    ),
    (
        ["--tcp-flags", "syn,ack", "--tcp-flags", "rst"],
        [{"tcp_flags": [{"SYN": True, "ACK": True}, {"RST": True}]}],
        [],
    ),
    (["-6", "--unencrypted"], [{"ip_version": ["IPv6"], "encrypted": [False]}], []),
    (["--cel-expression", "true"], [{"experimental": {"cel_expression": ["true"]}}], []),
    (["--http-header", "a:b:c"], [{"http_header": [{"key": "a", "value": "b:c"}]}], []),
    (
        ["--from-cluster", "west", "--node-name", "west/"],
        [{"source_cluster_name": ["west"], "node_name": ["west/"]}],
        [],
    ),
    (
        ["--drop-reason-desc", "policy_denied", "--traffic-direction", "egress"],
        [{"drop_reason_desc": ["POLICY_DENIED"], "traffic_direction": ["EGRESS"]}],
        [],
    ),
    ([], [], []),
]


@pytest.mark.parametrize(("arguments", "allow", "deny"), RAW, ids=[" ".join(r[0]) for r in RAW])
def test_flags_become_filters(arguments: list[str], allow: Any, deny: Any) -> None:
    """At most two on each list; printed as YAML of JSON that can be used again."""
    said = isthmus("hubble", "observe", *arguments, "--print-raw-filters")
    assert said.code == 0, said.err
    lists: dict[str, list[Any]] = {"allowlist": [], "denylist": []}
    current: list[Any] = []
    for line in said.out.splitlines():
        if line == "{}":
            continue
        if line.endswith(":"):
            current = lists[line[:-1]]
        else:
            current.append(json.loads(line.strip().removeprefix("- ").strip("'")))
    if allow is not None:
        assert (lists["allowlist"], lists["denylist"]) == (allow, deny)
    for one in (*lists["allowlist"], *lists["denylist"]):
        json_format.ParseDict(one, flow_pb2.FlowFilter())


WRONG = [
    (
        ["--from-pod", "a", "--namespace", "b"],
        "filters --from-pod and --namespace cannot be combined",
    ),
    (["--pod", "a", "--to-pod", "b"], "filters --pod and --to-pod cannot be combined"),
    (["-n", "x", "--pod", "a/b"], "--pod a/b: names a namespace"),
    (["--first", "1", "--follow"], "cannot set both --first and --follow"),
    (["--last", "1", "--all"], "cannot set both --last and --all"),
    (["-o", "table", "-f"], "table output format is not compatible with follow mode"),
    (["--field-mask", "uuid"], "compact output format is not compatible with custom field mask"),
    (["-o", "json", "--field-mask", "x"], "invalid fieldmask: 'x'"),
    (["--pod", "a", "--not"], "trailing --not found in the arguments"),
    (["--verdict", "maybe"], "verdict 'maybe': none of VERDICT_UNKNOWN, FORWARDED"),
    (["--identity", "nobody"], "identity 'nobody': neither a number nor one of"),
    (["-t", "nothing"], "type 'nothing': not a number nor one of drop"),
    (["-t", "trace:x"], "'x' is not a number or one of to-endpoint"),
    (["--tcp-flags", "xyz"], "'xyz' is none of FIN"),
    (["--since", "yesterday"], "--since: 'yesterday' is neither a duration"),
    (["--allowlist", '{"nothing": 1}'], "nothing"),
    (["--basic-auth-username", "x"], "basic auth needs --tls"),
]


@pytest.mark.parametrize(("arguments", "reason"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_usage_is_refused(arguments: list[str], reason: str) -> None:
    """Exit status 2 with what is wrong, before anybody is asked."""
    said = isthmus("hubble", "observe", *arguments, "--server", "unix:///nowhere")
    assert said.code == 2
    assert reason in said.err


async def test_failures_end_with_one_line(tmp_path: Path) -> None:
    """Nobody there, a filter the server refuses, a call it does not have: exit 1 and the reason."""
    nowhere = ("--server", f"unix://{tmp_path}/no.sock")
    said = await asyncio.to_thread(isthmus, "hubble", "observe", *nowhere)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"Error: unix://{tmp_path}/no.sock: ")
    said = await asyncio.to_thread(isthmus, "hubble", "status", "--server", "localhost")
    assert (said.code, said.err) == (
        1,
        "Error: localhost: not of the form host:port or unix:///path\n",
    )
    said = await run(tmp_path, MemorySource(), "observe", "--ip", "10.0.0")
    assert said.code == 1
    assert "source_ip '10.0.0': neither an address nor a CIDR (invalid argument" in said.err
    said = await run(tmp_path, MemorySource(), "list", "nodes")
    assert said.code == 1
    assert "ask a relay" in said.err
    assert len(said.err.splitlines()) == 1


async def test_status(tmp_path: Path) -> None:
    """Health and numbers, in all formats; the nodes' lines only where a relay says them."""
    source = MemorySource(capacity=7)
    source.add_flows(10)
    said = await run(tmp_path, source, "status")
    lines = said.out.splitlines()
    assert lines[0] == f"Healthcheck (via unix://{tmp_path}/h.sock): Ok"
    assert lines[1] == "Current/Max Flows: 7/7 (100.00%)"
    assert lines[2].startswith("Flows/s: ")
    assert (said.code, len(lines)) == (0, 3)
    table = await run(tmp_path, source, "status", "-o", "table")
    assert table.out.split("\n")[0].startswith("NUM FLOWS   MAX FLOWS   SEEN FLOWS")
    shown = json.loads((await run(tmp_path, source, "status", "-o", "json")).out)
    assert (shown["num_flows"], shown["seen_flows"]) == ("7", "10")
    named = await run(tmp_path, source, "status", "-o", "dict")
    assert "NUM UNAVAIL. NODES: N/A" in named.out


async def test_namespaces_and_peers(tmp_path: Path) -> None:
    """Listed as told; the cluster only when asked for."""
    source = MemorySource()
    source.known_namespaces = [("east", "shop"), ("west", "kube-system")]
    said = await run(tmp_path, source, "list", "namespaces", "-o", "wide")
    assert said.out == "NAMESPACE     CLUSTER\nshop          east\nkube-system   west\n"
    said = await run(tmp_path, source, "list", "namespaces")
    assert said.out == "NAMESPACE\nshop\nkube-system\n"


def test_nodes_are_listed_by_name() -> None:
    """As a relay describes them, the missing as N/A."""
    from cli import hubble_listing

    answer = observer_pb2.GetNodesResponse()
    answer.nodes.add(
        name="node-1",
        version="isthmus v1",
        address="192.0.2.1:4244",
        state=1,
        uptime_ns=3661 * 10**9,
        num_flows=4095,
        max_flows=4095,
        seen_flows=100_000,
        tls=observer_pb2.TLS(enabled=True),
    )
    answer.nodes.add(name="east/node-9", address="192.0.2.9:4244", state=2)
    expected = (GOLDEN / "hubble_nodes_wide.txt").read_text()
    assert hubble_listing.nodes(answer, wide=True) == expected.rstrip("\n")


async def test_a_file_is_read_like_a_server(tmp_path: Path) -> None:
    """What -o json wrote, filtered again; a line that is no flow is named."""
    source = source_of_scenes()
    written = await run(tmp_path, source, "observe", "-o", "json")
    file = tmp_path / "flows.json"
    file.write_text(written.out)
    said = isthmus("hubble", "observe", "--input-file", file, "--verdict", "AUDIT")
    assert "policy-verdict:L4-Only EGRESS AUDITED (UDP)" in said.out
    assert len(said.out.splitlines()) == 1
    said = isthmus("hubble", "observe", "--input-file", file, "--last", "2", "-o", "json")
    assert said.out.splitlines() == written.out.splitlines()[-2:]
    file.write_text(written.out + "{not json\n")
    said = isthmus("hubble", "observe", "--input-file", file)
    assert said.code == 1
    assert f"{file}, line {len(SCENES) + 1}: no flow" in said.err


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("StampMilli", "Jun 15 15:06:41.123"),
        ("YearMonthDay", "2025-06-15"),
        ("YearMonthDayHour", "2025-06-15T15Z"),
        ("YearMonthDayHourMinute", "2025-06-15T15:06Z"),
        ("RFC3339", "2025-06-15T15:06:41Z"),
        ("RFC3339Milli", "2025-06-15T15:06:41.123Z"),
        ("RFC3339Micro", "2025-06-15T15:06:41.123456Z"),
        ("RFC3339Nano", "2025-06-15T15:06:41.123456789Z"),
        ("RFC1123Z", "Sun, 15 Jun 2025 15:06:41 +0000"),
    ],
)
def test_times_in_all_layouts(layout: str, text: str) -> None:
    """Printed, and read back as far as the layout says."""
    from datetime import UTC, datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    time = Timestamp(seconds=1_750_000_001, nanos=123_456_789)
    assert hubble_times.formatter(layout)(time) == text
    parsed = hubble_times.parse_time(text, datetime(2025, 7, 1, tzinfo=UTC))
    assert hubble_times.formatter(layout)(parsed)[:23] == text[:23]
    ago = hubble_times.parse_time("1h30m0.5s", datetime(2025, 7, 1, tzinfo=UTC))
    assert ago.ToDatetime().isoformat() == "2025-06-30T22:29:59.500000"


async def test_peers_are_watched(tmp_path: Path) -> None:
    """One line a change, until the server goes away: that is a failure and says so."""
    peers = PeerTable()
    peers.replace({"node-1": Peer("192.0.2.1:4244", "node-1.default.hubble-grpc.cilium.io")})
    path = tmp_path / "h.sock"
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        async with observing(MemorySource(), path, peers) as server:
            command = group.create_task(
                asyncio.to_thread(isthmus, "hubble", "watch", "peers", "--server", f"unix://{path}")
            )
            while not any(c.streams for c in server.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        said = await command
    assert said.out == (
        "PEER_ADDED   192.0.2.1:4244 node-1 "
        "(TLS.ServerName: node-1.default.hubble-grpc.cilium.io)\n"
    )
    assert said.code == 1


def conversation(
    number: int, client: dict[str, Any], server: dict[str, Any]
) -> list[flow_pb2.Flow]:
    """A connection over two clusters: there seen on both nodes, back on the client's."""
    ports = {"source_port": 41000 + number, "destination_port": 80}
    back_ports = {"source_port": 80, "destination_port": 41000 + number}
    near, far = {**client, "ID": 7}, {**server, "ID": 9}
    way = {"l4": {"TCP": ports}, "IP": ADDRESSES}
    return [
        flow(1, **way, source=near, destination=server, event_type={"type": 4, "sub_type": 5}),
        flow(2, **way, source=client, destination=far, node_name="east/node-9"),
        flow(
            3,
            l4={"TCP": back_ports},
            IP=BACK,
            is_reply=True,
            source=server,
            destination=near,
            event_type={"type": 4},
        ),
    ]


async def test_both_sides_of_a_connection_are_joined(tmp_path: Path) -> None:
    """One line each: both views, the gravest verdict, a side that was not seen."""
    source = MemorySource()
    source.add(*(record(one) for one in conversation(0, CART, PAY)))
    denied = conversation(1, CART, PAY)[:2]
    denied[1].verdict, denied[1].event_type.type = flow_pb2.Verdict.DROPPED, 1
    denied[1].event_type.sub_type = 133
    denied[1].ClearField("is_reply")
    source.add(*(record(one) for one in denied))
    source.add(record(conversation(2, CART, PAY)[0]))
    said = await run(tmp_path, source, "observe", "--joined")
    ids = "(ID:21001) -> shop/pay-77f:80 (ID:21002) TCP"
    assert said.out.splitlines() == [
        f"{stamp(1)}: shop/cart-6c9d:41000 {ids} "
        "source: west/node-1 FORWARDED (from-endpoint, to-endpoint; 2 flows) "
        "destination: east/node-9 FORWARDED (to-endpoint; 1 flow)",
        f"{stamp(4)}: shop/cart-6c9d:41001 {ids} "
        "source: west/node-1 FORWARDED (from-endpoint; 1 flow) "
        "destination: east/node-9 DROPPED (Policy denied; 1 flow)",
        f"{stamp(6)}: shop/cart-6c9d:41002 {ids} "
        "source: west/node-1 FORWARDED (from-endpoint; 1 flow) destination: unseen",
    ]
    said = await run(tmp_path, source, "observe", "--joined", "-o", "json")
    shown = json.loads(said.out.splitlines()[2])
    assert shown["source"]["view"]["seen"] == ["from-endpoint"]
    assert (shown["destination"]["port"], shown["destination"]["view"]) == (80, None)
    for wrong in (["-f"], ["-o", "dict"]):
        refused = await run(tmp_path, source, "observe", "--joined", *wrong)
        assert refused.code == 2


def sizes_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("flows.json*")}


async def test_a_recording_rotates_and_is_replayed(tmp_path: Path) -> None:
    """Pieces no larger than asked, the oldest gone; replay reads them in order and filters."""
    source = MemorySource()
    source.add_flows(40)
    source.add_flows(10, verdict="DROPPED", event_type={"type": 1})
    file = tmp_path / "flows.json"
    limit = ("--max-size-mb", "0.002", "--max-backups", "3")
    said = await run(tmp_path, source, "record", str(file), "--all", *limit)
    assert (said.code, said.err) == (0, f"50 lines written to {file}\n")
    sizes = sizes_of(tmp_path)
    assert sorted(sizes) == ["flows.json", "flows.json.1", "flows.json.2", "flows.json.3"]
    assert max(sizes.values()) <= 2000

    def replayed(*arguments: str) -> list[str]:
        shown = isthmus("hubble", "replay", file, "-o", "json", *arguments)
        assert shown.code == 0, shown.err
        return [json.loads(line)["flow"]["uuid"] for line in shown.out.splitlines()]

    everything = await asyncio.to_thread(replayed)
    assert everything == [f"u{n}" for n in range(51 - len(everything), 51)]
    assert 20 < len(everything) < 50
    assert await asyncio.to_thread(replayed, "--verdict", "DROPPED", "--last", "2") == [
        "u49",
        "u50",
    ]
    assert await asyncio.to_thread(replayed, "--since", "2025-06-15T15:07:29Z") == ["u49", "u50"]
    again = await run(tmp_path, source, "record", str(file), "--last", "1")
    assert again.code == 0
    assert (await asyncio.to_thread(replayed))[-2:] == ["u50", "u50"]
    said = await asyncio.to_thread(isthmus, "hubble", "replay", file, "--joined", "-f")
    assert said.code == 2
