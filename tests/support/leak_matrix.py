"""What happens while nothing may be seen in clear text: the rows of the proof, over any world that
has pods, nodes, two clusters, and agents that can be killed.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Protocol

from reconcile.tasks import TaskGroup
from tests.support.agent import until
from tests.support.canary_traffic import Flow, Place, say_once
from tests.support.sniffer import Sightings, Sniffer, canary_seen

PORT = 7100
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
ROUNDS = 12  # of every flow in every row, at least
ICMP_BYTES = 28  # of headers, before what an error quotes
PATIENCE_S = 240.0  # an emulated machine on a busy one


class World(Protocol):
    """Two clusters that encrypt for one another. ``near`` is a pod of one, ``far`` of the other."""

    near: Place
    far: Place
    node: Place  # of the pod ``near``; its address is the one that pods of others see
    service: tuple[str, int]  # of both clusters; its only backend is ``far``
    stranger: str  # an address on the wire that is no part of the mesh

    def sniffers(self) -> list[Sniffer]:
        """Started; together they see all that leaves a node."""

    async def victim(self) -> Place:
        """A fresh pod beside ``far``, which serves, and is known to the cluster of ``near``."""

    async def end(self, pod: Place) -> None:
        """It is deleted, and its address given back."""

    async def kill_agents(self) -> None:
        """All at once, without a word; returns when their successors are ready."""

    async def cut(self) -> None:
        """The cluster of ``far`` cannot be read any more, and that is noticed."""

    async def mend(self) -> None:
        """It can be read again, and is."""

    async def rotate(self) -> None:
        """Every key becomes another; returns when the old ones are retired."""


@asynccontextmanager
async def running(*flows: Flow) -> AsyncIterator[None]:
    """They run while the block does."""
    async with TaskGroup() as tasks:
        made = [tasks.create_task(flow.run()) for flow in flows]
        try:
            yield
        finally:
            for task in made:
                task.cancel()


@asynccontextmanager
async def flowing(*flows: Flow) -> AsyncIterator[None]:
    """Each must get through ``ROUNDS`` requests after the block's work too, and break never."""
    async with running(*flows):
        await advance(flows)
        yield
        await advance(flows)
    assert [flow.error for flow in flows] == [""] * len(flows), flows


async def advance(flows: tuple[Flow, ...]) -> None:
    """``ROUNDS`` more of each, or its end."""
    before = [flow.rounds for flow in flows]

    def done() -> bool:
        return all(
            flow.error or flow.rounds >= was + ROUNDS
            for flow, was in zip(flows, before, strict=True)
        )

    await until(done, f"more of {flows}", PATIENCE_S, 0.05)


def _both(source: Place, target: Place) -> tuple[Flow, Flow]:
    return (
        Flow(source, target.address, PORT, STREAM),
        Flow(source, target.address, PORT, DATAGRAM),
    )


async def pod(world: World) -> None:
    """TCP and UDP between pods, both ways."""
    async with flowing(*_both(world.near, world.far), *_both(world.far, world.near)):
        pass


async def host(world: World) -> None:
    """A node's process and the pod of another node."""
    async with flowing(*_both(world.node, world.far)):
        pass


async def service(world: World) -> None:
    """By the address of a service whose backend the other cluster has."""
    async with flowing(Flow(world.near, *world.service)):
        pass


async def terminating_pod(world: World) -> None:
    """Somebody speaks on to a pod that ends, and to one that begins."""
    victim = await world.victim()
    speaking = Flow(world.near, victim.address, PORT, DATAGRAM, pause_s=0.002)
    async with running(speaking), flowing(*_both(world.near, world.far)):
        await world.end(victim)
        await asyncio.sleep(0.5)
        fresh = await world.victim()
        async with flowing(Flow(world.near, fresh.address, PORT)):
            pass
        await world.end(fresh)
    assert speaking.rounds > 0


async def agent_restarting(world: World) -> None:
    """Killed, and started again; connections live on, and a new one comes to be."""
    async with flowing(*_both(world.near, world.far), Flow(world.node, world.far.address, PORT)):
        await world.kill_agents()
    async with flowing(*_both(world.near, world.far)):
        pass


async def remote_cluster_reconnecting(world: World) -> None:
    """What was last heard stays in force; a pod that came meanwhile is reached afterwards."""
    async with flowing(*_both(world.near, world.far), Flow(world.near, *world.service)):
        await world.cut()
        await asyncio.sleep(0.5)
        await world.mend()
        fresh = await world.victim()
        async with flowing(Flow(world.near, fresh.address, PORT)):
            pass
        await world.end(fresh)


async def rotation(world: World) -> None:
    """Connections see nothing of it."""
    flows = (*_both(world.near, world.far), *_both(world.far, world.near))
    async with flowing(*flows, Flow(world.near, *world.service)):
        await world.rotate()


ROWS: dict[str, Callable[[World], Awaitable[None]]] = {
    "pod": pod,
    "host": host,
    "service": service,
    "terminating pod": terminating_pod,
    "agent restarting": agent_restarting,
    "remote cluster reconnecting": remote_cluster_reconnecting,
    "rotation": rotation,
}


@contextmanager
def watched(world: World) -> Iterator[None]:
    """Nothing in clear text, and something in cipher, at every place that is watched. The same
    capture has to show one canary that was sent to a stranger: a leak would have been seen, too.
    """
    sniffers = world.sniffers()
    with ExitStack() as stack:
        seen = list[Sightings]()
        stack.callback(lambda: seen.extend(sniffer.stop() for sniffer in sniffers))
        size = say_once(world.node, world.stranger)
        yield
    planted = canary_seen(size)
    assert any(planted in sight.leaks for sight in seen), "the sniffers saw no canary"
    # No flow has packets of this size. That nobody listens comes back, with the packet quoted.
    refusal = canary_seen(size + ICMP_BYTES)
    for sight in seen:
        sight.assert_clean(but={planted, refusal})


async def run(world: World, row: str) -> None:
    """One cell."""
    with watched(world):
        await ROWS[row](world)
