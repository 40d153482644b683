"""Encryption: the nodes of a large mesh into a device and into the kernel's policies."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from bench import topology
from bench.figure import Figure
from bench.wireguard_devices import in_space, keeper, opened
from encryption import ipsec
from encryption.ipsec import Policy, PolicyId
from encryption.ipsec_keys import End
from encryption.peers import Peer, Peers, PublicKey
from encryption.wireguard import PeerTable
from encryption.xfrm import Policies
from model.address import Address, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from reconcile.loop import Loop
from reconcile.table import Table

T = TypeVar("T")
Call = Callable[..., Awaitable[Any]]

NODES = 1000
ROUNDS = 20
OWN = ClusterName("own")


async def _measured(
    table: Table[Any, Any],
    fill: Callable[[], None],
    change: Callable[[int], None],
    check: Callable[[], Awaitable[None]],
) -> tuple[float, list[float]]:
    """Seconds until all rows are in the target, and milliseconds for each change of one node."""
    loop = Loop((table,))
    await loop.round()
    table.allow_prune()

    async def round_s(work: Callable[[], None]) -> float:
        begun = time.monotonic()
        work()
        await loop.round()
        return time.monotonic() - begun

    all_s = await round_s(fill)
    await check()
    ones = [await round_s(partial(change, turn)) for turn in range(1, ROUNDS + 1)]
    await check()
    return all_s, sorted(1000 * one_s for one_s in ones)


def _figures(
    name: str, found: tuple[float, list[float]], detail: dict[str, object]
) -> Iterator[Figure]:
    all_s, ones = found
    detail = {"peers": NODES} | detail
    yield Figure(f"encrypt.{name}_1000_s", round(all_s, 3), "s", detail)
    slowest = {"max": round(ones[-1], 2)}
    yield Figure(f"encrypt.{name}_1_ms", round(ones[len(ones) // 2], 2), "ms", detail | slowest)


def _caller(space: str) -> Call:
    async def call(function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.to_thread(in_space, space, lambda: function(*arguments))

    return call


def _host(number: int, network: str) -> Address:
    return parse_address(f"{network}.{number >> 8}.{number & 255}")


def _node(number: int, version: int = 0) -> Node:
    key = (number + 1).to_bytes(4) + version.to_bytes(4) + bytes(24)
    return Node(
        OWN,
        NodeName(f"n{number}"),
        ClusterId(1),
        (NodeAddress(INTERNAL_IP, _host(number, "192.0")),),
        wireguard_public_key=base64.b64encode(key).decode(),
    )


def wireguard() -> Iterator[Figure]:
    """From nodes in the mesh to peers in the device."""
    with topology.namespace("wg") as space, keeper(space) as directory:
        device, key = opened(space, "ist_wg0", directory, 51871)

        async def run() -> tuple[float, list[float]]:
            peers = Peers(OWN, key, lambda changed: table.mark(changed))
            target = PeerTable(device, _caller(space))
            table: Table[PublicKey, Peer] = Table(
                "wireguard", target, peers, clock=time.monotonic, draw=lambda: 0.5
            )

            def fill() -> None:
                for number in range(NODES):
                    peers.put(_node(number))
                    prefix = parse_prefix(f"10.{number >> 8}.{number & 255}.0/24")
                    peers.set_prefix(prefix, _host(number, "192.0"))

            async def check() -> None:
                assert len(await target.read()) == NODES

            # One node has another key.
            return await _measured(table, fill, lambda turn: peers.put(_node(turn, turn)), check)

        found = asyncio.run(run())
    yield from _figures("reconcile", found, {"by": device.kind})


def _policies(number: int, key_id: int) -> dict[PolicyId, Policy]:
    peer = ipsec.Peer(End(_host(number, "10.9"), "0" * 36), number + 1, key_id)
    return ipsec.desired_policies(parse_address("192.0.2.1"), [peer], [key_id])


def ipsec_policies() -> Iterator[Figure]:
    """Policies of IPsec into the kernel; states need ESP, which not every kernel has."""
    with topology.namespace("xfrm") as space:

        async def run() -> tuple[float, list[float]]:
            wanted: dict[PolicyId, Policy] = {}
            target = Policies(_caller(space))
            table: Table[PolicyId, Policy] = Table(
                "ipsec-policies", target, wanted, clock=time.monotonic, draw=lambda: 0.5
            )

            def fill() -> None:
                for number in range(NODES):
                    wanted.update(_policies(number, 3))
                table.mark_all()

            def change(turn: int) -> None:
                for key in _policies(turn, 3).keys() - _policies(turn, 4).keys():
                    del wanted[key]
                    table.mark(key)
                for key, row in _policies(turn, 4).items():  # its key has changed
                    wanted[key] = row
                    table.mark(key)

            async def check() -> None:
                assert dict(await target.read()) == wanted

            return await _measured(table, fill, change, check)

        found = asyncio.run(run())
    yield from _figures("ipsec_reconcile", found, {"of": "policies"})
