"""What the process does about its memory."""

import asyncio
import gc
import ssl
import weakref
from asyncio import sslproto
from collections.abc import Iterator
from typing import Any

import pytest

from agent import memory
from kvstore.connection import State
from kvstore.status import RemoteStatus
from model.cluster import ClusterName
from reconcile.tasks import TaskGroup


async def _told(
    statuses: list[RemoteStatus], limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> float:
    """After how long the heap is given back."""
    monkeypatch.setattr(memory, "LOOK_S", 0.01)
    monkeypatch.setattr(memory, "LIMIT_S", limit_s)
    began = asyncio.get_running_loop().time()
    await memory.give_back(lambda: statuses)
    return asyncio.get_running_loop().time() - began


async def test_the_heap_is_given_back_when_all_clusters_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not before, and without waiting for the limit."""
    one = RemoteStatus(ClusterName("one"), State.READY)
    two = RemoteStatus(ClusterName("two"), State.CONFIGURED)
    async with asyncio.timeout(10.0), TaskGroup() as tasks:
        task = tasks.create_task(_told([one, two], 60.0, monkeypatch))
        await asyncio.sleep(0.1)  # it has looked some times, and one cluster is not read
        assert not task.done()
        two.state = State.READY


async def test_a_cluster_that_never_answers_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit ends the wait."""
    one = RemoteStatus(ClusterName("one"), State.CONNECTING)
    assert await _told([one], 0.05, monkeypatch) >= 0.05


@pytest.fixture
def no_collector() -> Iterator[None]:
    """As it is while the mesh is read."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_the_collector_begins_when_all_clusters_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is there by then counts as old, and cycles among it are found all the same."""
    cycle: list[Any] = []
    cycle.append(cycle)
    gone = weakref.ref(_Holder(cycle))
    await _told([RemoteStatus(ClusterName("one"), State.READY)], 60.0, monkeypatch)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert any(found is cycle for found in gc.get_objects(generation=2))
    assert gone() is not None
    del cycle
    gc.collect()
    assert gone() is None


class _Holder:
    """Lives as long as a cycle."""

    def __init__(self, cycle: list[Any]) -> None:
        cycle.append(self)


@pytest.mark.usefixtures("no_collector")
async def test_the_collector_begins_without_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether anything is read or not."""
    monkeypatch.setattr(memory, "LEARNING_S", 0.05)
    gc.enable()
    memory.rest_collector()
    assert not gc.isenabled()
    await asyncio.sleep(0.1)  # longer than it may rest
    assert gc.isenabled()


def test_the_buffer_of_a_connection_follows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asyncio's own matter how a connection reads: this says when that changes."""
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", memory.TLS_BUFFER_BYTES)
    loop = asyncio.new_event_loop()
    context, waiter = ssl.create_default_context(), loop.create_future()
    made: Any = sslproto.SSLProtocol(loop, asyncio.Protocol(), context, waiter, False, "x")
    assert len(made.get_buffer(-1)) == memory.TLS_BUFFER_BYTES
    made._get_app_transport()._closed = True  # nothing was ever open
    loop.close()
