"""Which drops become events of pods, in which words, and that the API server gets them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hubble.drop_event_sender import _EVENTS, DropEventSender
from hubble.drop_events import DropEvents, Note, Settings, reasons
from kube import resources
from reconcile.tasks import TaskGroup
from tests.support.hubble import MemorySource, flow, record
from tests.support.kube import fake_api
from wire.hubble import flow_pb2 as f

LOCAL = {"ID": 7, "identity": 21001, "namespace": "shop", "pod_name": "cart-1"}
PEER = {"identity": 21002, "namespace": "bank", "pod_name": "pay-1"}
WORLD = {"identity": 2, "labels": ["reserved:world"]}
TCP = {"TCP": {"source_port": 41000, "destination_port": 80}}


def dropped(**fields: Any) -> f.Flow:
    """A denied packet that a pod of this node was to receive."""
    made = {
        "verdict": "DROPPED",
        "drop_reason_desc": "POLICY_DENIED",
        "event_type": {"type": 1, "sub_type": 133},
        "traffic_direction": "INGRESS",
        "IP": {"source": "10.2.0.9", "destination": "10.1.0.5"},
        "source": PEER,
        "destination": LOCAL,
        "l4": TCP,
    }
    return flow(1, **{**made, **fields})


OUT = {"traffic_direction": "EGRESS", "source": LOCAL, "IP": {"source": "10.1.0.5"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Incoming packet dropped (policy_denied) from bank/pay-1 (10.2.0.9) TCP/80"),
        (
            {**OUT, "IP": {"source": "10.1.0.5", "destination": "1.1.1.1"}, "destination": WORLD},
            "Outgoing packet dropped (policy_denied) to world (1.1.1.1) TCP/80",
        ),
        (
            {"source": {}, "l4": {"ICMPv4": {"type": 8}}, "drop_reason_desc": "AUTH_REQUIRED"},
            "Incoming packet dropped (auth_required) from 10.2.0.9 ICMPv4",
        ),
    ],
)
def test_what_a_drop_is_told_as(fields: dict[str, Any], message: str) -> None:
    """Of the pod of this node, with the other side by its name and address."""
    assert DropEvents(Settings()).take(dropped(**fields), 0) == Note("shop", "cart-1", message)


@pytest.mark.parametrize(
    "fields",
    [
        {"verdict": "FORWARDED"},
        {"drop_reason_desc": "INVALID_SOURCE_IP"},
        {"event_type": {"type": 5}},
        {"destination": {**LOCAL, "ID": 0}},
        {"destination": {"ID": 1, "identity": 1}},
    ],
)
def test_what_is_not_told(fields: dict[str, Any]) -> None:
    """What passed, other reasons, what is told as a drop as well, others' pods, the node."""
    assert DropEvents(Settings()).take(dropped(**fields), 0) is None


def test_the_same_is_told_once_in_a_while() -> None:
    """By source and destination address; whatever the port."""
    chosen = DropEvents(Settings(interval_s=10, rate=0))
    other = dropped(IP={"source": "10.2.0.8", "destination": "10.1.0.5"})
    again = dropped(l4={"TCP": {"destination_port": 81}})
    told = [(chosen.take(one, at) is not None) for one, at in (
        (dropped(), 0), (again, 9), (other, 9), (again, 10), (dropped(), 19), (other, 19.5),
    )]  # fmt: skip
    assert told == [True, False, True, True, False, True]
    assert chosen.counts == {"told": 4, "repeated": 2}


def test_a_storm_is_not_told_drop_by_drop() -> None:
    """So many a second; the rest are counted, and may be told later."""
    chosen = DropEvents(Settings(rate=2))
    storm = [dropped(IP={"source": f"10.2.0.{n}", "destination": "10.1.0.5"}) for n in range(9)]
    assert sum(chosen.take(one, 5.5) is not None for one in storm) == 2
    assert chosen.counts == {"told": 2, "limited": 7}
    assert chosen.take(storm[8], 6) is not None


def test_policies_are_named_when_that_is_asked_for() -> None:
    """The verdict knows them; of the two records of a denied packet only it is told."""
    chosen = DropEvents(Settings(extended=True, reasons=reasons("policy_deny ttl_exceeded")))
    denied = [{"namespace": "shop", "name": "no-probes"}, {"name": "all"}]
    verdict = dropped(
        drop_reason_desc="POLICY_DENY", event_type={"type": 5}, ingress_denied_by=denied
    )
    assert chosen.take(dropped(drop_reason_desc="POLICY_DENY"), 0) is None
    note = chosen.take(verdict, 0)
    assert note is not None
    assert note.message.endswith("TCP/80 denied by shop/no-probes, all")
    elsewhere = {"source": "10.2.0.8", "destination": "10.1.0.5"}
    assert chosen.take(dropped(drop_reason_desc="TTL_EXCEEDED", IP=elsewhere), 1) is not None


def test_reasons_are_names() -> None:
    assert reasons("auth_required,POLICY_DENIED") == {189, 133}
    assert reasons("") == frozenset()
    with pytest.raises(ValueError, match='"bad" is no reason'):
        reasons("policy_denied bad")


async def test_the_api_server_gets_them(tmp_path: Path) -> None:
    """On the pod, by its UID; a pod that is gone, or no API server, costs nothing else."""
    source = MemorySource()
    async with fake_api(tmp_path) as api, await api.direct() as client:
        pods = resources.untyped(resources.PODS)
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-1"}}
        made: Any = await client.create(pods, body, "shop")
        sender = DropEventSender(Settings(rate=0), source, api.connect)  # type: ignore[arg-type]
        async with TaskGroup() as group:
            task = group.create_task(sender.run())
            gone = {**LOCAL, "pod_name": "gone-1"}
            elsewhere = {"source": "10.2.0.7", "destination": "10.1.0.5"}
            source.add(record(dropped(destination=gone, IP=elsewhere)), record(flow(1)))
            source.add(record(dropped()))
            async with asyncio.timeout(20):
                while not (found := await client.list(_EVENTS, "shop")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            (event,) = found
            assert event["involvedObject"]["uid"] == made["metadata"]["uid"]
            assert (event["type"], event["reason"]) == ("Warning", "PacketDrop")
            assert "from bank/pay-1 (10.2.0.9) TCP/80" in event["message"]
            assert event["source"] == {"component": "hubble", "host": "node-1"}
            assert sender._chosen.counts == {"told": 2, "failed": 1}
            (page,) = sender.families()
            assert page.name == "hubble_drop_events_total"
            task.cancel()
