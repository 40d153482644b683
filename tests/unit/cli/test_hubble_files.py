"""Flows from files and into files, and both sides of a connection on one line."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hubble.ring import Lost, lost_record
from tests.support.cli import isthmus
from tests.support.hubble import MemorySource, flow, record
from tests.support.hubble_scenes import (
    ADDRESSES,
    BACK,
    CART,
    PAY,
    SCENES,
    run,
    source_of_scenes,
    stamp,
)
from tests.support.metrics_page import Scraped, parse
from wire.hubble import flow_pb2


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


def chosen(file: Path, *arguments: str) -> list[str]:
    """What is chosen of a file: numbers of flows, ``lost`` for a loss."""
    said = isthmus("hubble", "observe", "--input-file", file, "-o", "json", *arguments)
    assert said.code == 0, said.err
    shown = [json.loads(line) for line in said.out.splitlines()]
    return [one["flow"]["uuid"] if "flow" in one else "lost" for one in shown]


async def test_numbers_and_times_choose_of_a_file_together(tmp_path: Path) -> None:
    """The first or last of the time that is meant; losses are shown where they are, not counted."""
    source = MemorySource()
    source.add_flows(3)
    source.add(lost_record(Lost(1, 0, 7)))
    source.add_flows(3)
    written = await run(tmp_path, source, "observe", "-o", "json")
    file = tmp_path / "flows.json"
    file.write_text(written.out)
    assert chosen(file, "--all") == ["u1", "u2", "u3", "lost", "u5", "u6", "u7"]
    assert chosen(file, "--first", "4") == ["u1", "u2", "u3", "lost", "u5"]
    assert chosen(file, "--last", "4") == ["u3", "lost", "u5", "u6", "u7"]
    assert chosen(file, "--last", "3") == ["u5", "u6", "u7"]
    since = ("--since", "2025-06-15T15:06:42Z")
    assert chosen(file, *since, "--first", "1") == ["u2"]
    assert chosen(file, *since, "--last", "1") == ["u7"]
    assert chosen(file, *since, "--until", "2025-06-15T15:06:46Z", "--last", "2") == ["u5", "u6"]


async def test_other_lines_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows alone are flows; an export's other events are passed over, and that is said."""
    source = MemorySource()
    source.add_flows(2)
    monkeypatch.setenv("HUBBLE_COMPAT", "legacy-json-output")
    alone = (await run(tmp_path, source, "observe", "-o", "json")).out
    monkeypatch.delenv("HUBBLE_COMPAT")
    answers = (await run(tmp_path, source, "observe", "-o", "json")).out
    event = '{"agent_event":{"type":"AGENT_STARTED"},"node_name":"n","time":"2025-06-15T15:06:45Z"}'
    file = tmp_path / "flows.log.gz"
    file.write_bytes(gzip.compress(f"{alone}{event}\n{answers}".encode()))
    said = isthmus("hubble", "observe", "--input-file", file, "-o", "json")
    assert said.out == answers + answers
    assert said.err == f"{file}: 1 lines are neither flows nor losses\n"
    for content, reason in ((b"\x8b\x1f", "Not a gzipped file"), (None, "No such file")):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        said = isthmus("hubble", "observe", "--input-file", file)
        assert said.code == 1
        assert said.err.startswith(f"Error: {file}: cannot be read: {reason}")


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


async def test_a_recording_is_counted(tmp_path: Path) -> None:
    """As a node would have counted what is chosen of it."""
    file = tmp_path / "flows.json"
    file.write_text((await run(tmp_path, source_of_scenes(), "observe", "-o", "json")).out)

    def page(*words: str) -> dict[str, Scraped]:
        said = isthmus("hubble", "replay", file, *words)
        assert said.code == 0, said.err
        return parse(said.out)

    metrics = ("--metrics", "drop flow:sourceContext=pod port-distribution")
    counted = page(*metrics)
    assert counted["hubble_flows_processed_total"].total() == len(SCENES)
    assert counted["hubble_flows_processed_total"].total(source="shop/cart-6c9d") > 5
    assert counted["hubble_drop_total"].total(protocol="TCP") == 1
    assert counted["hubble_port_distribution_total"].total(port="8080") == 2
    dropped = page(*metrics, "--verdict", "DROPPED")
    assert dropped["hubble_flows_processed_total"].total() == 3
    said = isthmus("hubble", "replay", file, "--metrics", "weather")
    assert said.code == 2
    assert 'no metric "weather"' in said.err
