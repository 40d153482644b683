"""``isthmus hubble observe`` prints what the ``hubble`` command prints."""

import json
from pathlib import Path

import pytest

from cli import hubble_times
from cli.hubble_print import FORMATS
from hubble.ring import Lost, lost_record
from tests.support.hubble import MemorySource, flow, record
from tests.support.hubble_scenes import SCENES, run, source_of_scenes, stamp
from wire.hubble import flow_pb2

GOLDEN = Path(__file__).parents[2] / "golden"


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
