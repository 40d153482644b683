"""Flows into files: what is written, when files change, and what a bad disk costs."""

import asyncio
import gzip
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from hubble.config import ConfigError, HubbleConfig, load
from hubble.export import exporter, settings
from hubble.export.exporter import Exporter
from hubble.export.rotating import RotatingFile
from hubble.export.settings import Rotation
from hubble.node import NodeSource
from hubble.ring import RECORD_AGENT, Lost, lost_record
from reconcile.tasks import TaskGroup
from telemetry.metrics import render
from tests.support.hubble_records import CLIENT, SERVER, drop, some_names, tcp, trace
from tests.support.metrics_page import Scraped, parse
from wire.hubble import flow_pb2 as f
from wire.hubble import observer_pb2

NOW = 1_760_000_000 * 10**9
Json = dict[str, Any]


def configured(path: Path | str, **flags: str) -> HubbleConfig:
    words = {"cluster-name": "west", "k8s-node-name": "node-1", "hubble-export-file-path": path}
    words |= {key.replace("_", "-"): value for key, value in flags.items()}
    return load([f"--{key}={value}" for key, value in words.items() if value], {})


@asynccontextmanager
async def exporting(config: HubbleConfig) -> AsyncIterator[tuple[NodeSource, Exporter]]:
    source = NodeSource(config)
    source.names.__dict__.update(some_names().__dict__)
    running = Exporter(config, source)
    async with TaskGroup() as tasks:
        task = tasks.create_task(running.run())
        await asyncio.sleep(0)
        yield source, running
        task.cancel()


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(claim: Callable[[], object]) -> Any:
    async with asyncio.timeout(60):
        while not (found := claim()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


def page(running: Exporter) -> dict[str, Scraped]:
    return parse(render(running.families()))


async def test_every_event_is_a_line(tmp_path: Path) -> None:
    """Flows, losses and the agent's events, as the API's messages in JSON; the file is nobody's."""
    path = tmp_path / "new" / "events.log"
    event = f.AgentEvent(type=f.POLICY_UPDATED)
    async with exporting(configured(path)) as (source, running):
        source.ring.extend(
            [
                (NOW, trace(tcp())),
                (NOW + 1, lost_record(Lost(1, 1, 7))),
                (NOW + 2, bytes([RECORD_AGENT]) + event.SerializeToString()),
            ]
        )
        flow, lost, agent = await until(lambda: len(lines(path)) == 3 and lines(path))
        assert page(running)["hubble_exporter_lines_total"].total(name="static") == 3
    assert (flow["node_name"], lost["node_name"], agent["node_name"]) == (
        "west/node-1",
        "node-1",
        "node-1",
    )
    assert flow["flow"]["source"]["pod_name"] == "client-6d4f-x"
    assert flow["time"] == flow["flow"]["time"] == "2025-10-09T08:53:20Z"
    assert lost["lost_events"] == {
        "source": "PERF_EVENT_RING_BUFFER",
        "num_events_lost": "7",
        "cpu": 1,
    }
    assert agent["agent_event"]["type"] == "POLICY_UPDATED"
    for line in (flow, lost, agent):
        json_format.ParseDict(line, observer_pb2.ExportEvent())
    assert path.stat().st_mode & 0o777 == 0o600


async def test_filters_and_mask_of_the_settings(tmp_path: Path) -> None:
    """A filter of flows lets nothing else pass; time and node are there if the mask names them."""
    path = tmp_path / "events.log"
    config = configured(
        path,
        hubble_export_allowlist='{"verdict":["DROPPED"]} {"source_ip":["10.9.9.9"]}',
        hubble_export_denylist='{"drop_reason_desc":["INVALID_SOURCE_IP"]}',
        hubble_export_fieldmask="verdict drop_reason_desc source.pod_name time",
    )
    async with exporting(config) as (source, _):
        source.ring.extend(
            [
                (NOW, trace(tcp())),
                (NOW, lost_record(Lost(1, 1, 7))),
                (NOW, drop(tcp(), reason=132)),
                (NOW, drop(tcp())),
            ]
        )
        (line,) = await until(lambda: lines(path))
    assert line == {
        "flow": {
            "time": "2025-10-09T08:53:20Z",
            "verdict": "DROPPED",
            "drop_reason_desc": "POLICY_DENIED",
            "source": {"pod_name": "client-6d4f-x"},
        },
        "time": "2025-10-09T08:53:20Z",
    }


async def test_flows_are_counted_together(tmp_path: Path) -> None:
    """One line for all that are alike in the fields, at each interval and at the end."""
    path = tmp_path / "events.log"
    config = configured(
        path,
        hubble_export_fieldaggregate="source.pod_name,destination.pod_name",
        hubble_export_aggregation_interval="100ms",
    )
    there, back = trace(tcp()), trace(tcp(SERVER, CLIENT), endpoint=22, reason=2)
    async with exporting(config) as (source, _):
        source.ring.extend([(NOW + n, there) for n in range(5)] + [(NOW, back)] * 2)
        await until(lambda: len(lines(path)) == 2)
        source.ring.extend([(NOW + 9, there)])
        for _ in range(20):  # turns, in which it is taken; not time, which may pass without any
            await asyncio.sleep(0)
    first, second, last = lines(path)
    assert first["flow"]["aggregate"] == {"ingress_flow_count": 5}
    assert first["flow"]["time"] == "2025-10-09T08:53:20Z"
    assert first["flow"]["destination"] == {"pod_name": "server-0"}
    assert "l4" not in first["flow"]
    assert second["flow"]["source"] == {"pod_name": "server-0"}
    assert sum(second["flow"]["aggregate"].values()) == 2
    assert last["flow"]["aggregate"] == {"ingress_flow_count": 1}


FILE = """
flowLogs:
  - name: drops
    filePath: {0}/drops.log
    includeFilters: [{{verdict: [DROPPED]}}]
    fieldMask: [verdict]
  - name: all
    filePath: {0}/all.log
    end: {1}
"""


async def test_exports_come_change_and_end_by_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself; one whose time is over is idle; a bad file changes nothing."""
    monkeypatch.setattr(exporter, "FILE_INTERVAL_S", 0.0)
    path = tmp_path / "flowlogs.yaml"
    config = configured("", hubble_flowlogs_config_path=str(path))
    now_ns = time.time_ns()
    drops, everything = tmp_path / "drops.log", tmp_path / "all.log"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text.format(tmp_path, "2999-01-01T00:00:00Z"))
        os.replace(tmp_path / "new", path)

    async with exporting(config) as (source, running):

        def operations(op: str) -> float:
            return page(running)["hubble_dynamic_exporter_reconfigurations_total"].total(op=op)

        write(FILE)
        await until(lambda: operations("add") == 2)
        source.ring.extend([(now_ns, trace(tcp())), (now_ns, drop(tcp()))])
        await until(lambda: len(lines(drops)) == 1 and len(lines(everything)) == 2)
        assert lines(drops) == [{"flow": {"verdict": "DROPPED"}}]
        exporters = page(running)["hubble_dynamic_exporter_exporters_total"]
        assert (exporters.total(status="active"), exporters.total(status="inactive")) == (2, 0)
        before = page(running)["hubble_dynamic_exporter_config_hash"].total()
        write("flowLogs: [{{name: drops}}]")
        await until(lambda: operations("failure") >= 1)
        source.ring.extend([(now_ns, drop(tcp()))])
        await until(lambda: len(lines(drops)) == 2)
        assert page(running)["hubble_dynamic_exporter_config_hash"].total() == before
        write(FILE.replace("{1}", "2020-01-01T00:00:00Z").replace("fieldMask: [verdict]", ""))
        await until(lambda: operations("update") == 2)
        source.ring.extend([(now_ns, drop(tcp()))])
        await until(lambda: len(lines(drops)) == 3)
        assert "source" in lines(drops)[2]["flow"]
        assert len(lines(everything)) == 3
        up = page(running)["hubble_dynamic_exporter_up"]
        assert (up.total(name="drops"), up.total(name="all")) == (1, 0)
        write("flowLogs: []")
        await until(lambda: operations("remove") == 2)
        source.ring.extend([(now_ns, drop(tcp()))])
        await asyncio.sleep(0.1)
        assert len(lines(drops)) == 3
        assert page(running)["hubble_exporter_lines_total"].total(name="drops") == 3


def test_files_are_put_aside_when_full(tmp_path: Path) -> None:
    """By time in the name, packed, only so many; what somebody took away is made anew."""
    path = tmp_path / "events.log"
    file = RotatingFile(path, Rotation(1, 2, True))
    parts = [bytes([65 + n]) * (600 << 10) + b"\n" for n in range(5)]
    for part in parts:
        file.write(part)
        time.sleep(0.002)  # names have milliseconds
    assert path.read_bytes() == parts[4]
    first, second = file.backups()
    assert gzip.decompress(first.read_bytes()) == parts[2]
    assert gzip.decompress(second.read_bytes()) == parts[3]
    assert first.name.startswith("events-2") and first.name.endswith(".log.gz")  # noqa: PT018
    path.unlink()
    file.write(b"again\n")
    assert path.read_bytes() == b"again\n"
    file.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB of room."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "isthmus-test", str(where)]
    if subprocess.run(command, check=False).returncode:
        pytest.fail("a small disk needs root")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.root
async def test_a_full_disk_is_told_and_harms_nobody(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines are whole, those that found no room are counted; with room again it goes on."""
    path = small_disk / "events.log"
    async with exporting(configured(path)) as (source, running):
        for _ in range(4):
            source.ring.extend([(NOW, trace(tcp()))] * 100)
            await asyncio.sleep(0.05)

        def lost() -> float:
            return page(running)["hubble_exporter_lost_lines_total"].total(reason="disk")

        await until(lost)
        assert "event=export-lost name=static" in caplog.text
        assert "No space left" in caplog.text
        assert source.ring.newest == 400
        assert all("flow" in line for line in lines(path))
        path.write_bytes(b"")

        def again() -> bool:
            source.ring.extend([(NOW, trace(tcp()))])
            return bool(lines(path))

        await until(again)
        written = page(running)["hubble_exporter_lines_total"].total()
        assert written + lost() <= source.ring.newest


async def test_a_slow_disk_costs_lines_and_not_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a write that hangs; what found no room is counted exactly."""
    monkeypatch.setattr("hubble.export.writer.ROOM_BYTES", 20_000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    async with exporting(configured(path)) as (source, running):
        number = 400
        for _ in range(number // 10):
            source.ring.extend([(NOW, trace(tcp()))] * 10)
            await asyncio.sleep(0.005)

        def lost() -> float:
            return page(running)["hubble_exporter_lost_lines_total"].total(reason="queue")

        await until(lost)
        read = b""

        def all_read() -> bool:
            nonlocal read
            try:
                while part := os.read(reader, 1 << 16):
                    read += part
            except BlockingIOError:
                pass
            return len(read.splitlines()) + lost() == number

        await until(all_read)
    os.close(reader)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{verdict}", "no JSON of filters at character 2"),
        ('["x"]', "a filter is a JSON object"),
        ('{"planet":["x"]}', r"filter\[0\].*planet"),
        ('{"source_ip":["10.0.0.0/99"]}', r"filter\[0\]"),
    ],
)
def test_filters_that_cannot_be_used(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configured("/x.log", hubble_export_allowlist=text)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{name: a, filePath: relative.log}", 'flow log "a": filePath.*absolute'),
        ("{filePath: /a.log}", "name"),
        ("{name: a, filePath: /a, fieldMask: [planet]}", 'flow log "a".*planet'),
        ("{name: a, filePath: /a, end: tomorrow}", 'flow log "a": end is "tomorrow": use RFC 3339'),
        ("{name: a, filePath: /a, aggregationInterval: often}", '"often" is no duration'),
        ("{name: a, filePath: /a}, {name: a, filePath: /b}", 'name "a" is there twice'),
        ("{name: a, filePath: /a}, {name: b, filePath: /a}", 'filePath "/a" is there twice'),
    ],
)
def test_a_file_of_exports_that_cannot_be_used(entry: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings.parse_file(f"flowLogs: [{entry}]".encode(), Rotation())


def test_settings_of_a_file_and_their_defaults() -> None:
    config = configured("", hubble_export_file_max_size_mb="3", hubble_export_file_compress="true")
    entry = b"{name: a, filePath: stdout, end: 2026-01-31T12:00:00+01:00, fileMaxBackups: 9}"
    text = b"flowLogs: [%s]" % entry
    (one,) = settings.parse_file(text, config.export_rotation)
    assert one.rotation == Rotation(3, 9, True)
    assert one.end_ns == 1769857200 * 10**9
    assert config.exports == ()
    assert replace(config, hubble_export_file_path="stdout").exports[0].path == "stdout"
    with pytest.raises(ConfigError, match="absolute path, or stdout"):
        configured("relative.log")
