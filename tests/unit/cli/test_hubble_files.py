"""Flows from files and into files, and both sides of a connection on one line."""

import asyncio
import json
from pathlib import Path
from typing import Any

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
