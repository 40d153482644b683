"""Encryption: peers into a device, the stream against a bare tunnel, requests while keys change."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from bench import topology
from bench.figure import Figure, interleave, ratio
from bench.lab import joined_lab
from datapath import namespaces
from encryption import ipsec
from encryption import wireguard_keys as keys
from encryption.choose import open_device
from encryption.device import MARK, OVERHEAD_BYTES, PeerChange
from encryption.ipsec import Policy, PolicyId
from encryption.ipsec_keys import End
from encryption.peers import Peer, Peers, PublicKey
from encryption.wireguard import Device, PeerTable
from encryption.xfrm import Policies
from kind import story
from kind.lab.topology import Topology
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from reconcile.loop import Loop
from reconcile.table import Table
from tests.support.sniffer import CANARY, Sniffer
from tests.support.wireguard_world import NODES as NODE_PREFIXES
from tests.support.wireguard_world import PODS, agents

T = TypeVar("T")

NODES = 1000
RUNS = 5
SECONDS = 2.0
ROUNDS = 20
BARE = "ist_wg7"
OWN = ClusterName("own")
# The keeper and wireguard-go see this directory as /run: sockets are named by device alone.
_KEEPER = 'mount --make-rprivate /; mount --bind "$1/run" /run; exec "$2" -m encryption.keeper'


@contextmanager
def keeper(space: str) -> Iterator[Path]:
    """A keeper of userspace devices in a namespace, and the directory where it lives."""
    with tempfile.TemporaryDirectory(prefix="ist-bench-") as name:
        directory = Path(name)
        (directory / "run").mkdir()
        script = f'{_KEEPER} --wanted "$1/wanted"'
        words = ("unshare", "-m", "sh", "-c", script, "sh", name, sys.executable)
        process = subprocess.Popen(topology.inside(space, *words), stdout=subprocess.DEVNULL)
        try:
            yield directory
        finally:
            process.terminate()
            process.wait()


def in_space(space: str, work: Callable[[], T]) -> T:
    """Call in a network namespace."""
    return namespaces.run_inside(f"/run/netns/{space}", work)


def opened(space: str, name: str, directory: Path, port: int) -> tuple[Device, PublicKey]:
    """A device with a key, kernel or userspace."""

    def work() -> tuple[Device, PublicKey]:
        sockets = directory / "run" / "wireguard"
        device, _ = open_device(name, 1500 - OVERHEAD_BYTES, directory / "wanted", sockets)
        key = keys.generate()
        device.configure(key, port, MARK)
        return device, key.public()

    return in_space(space, work)


def _node(number: int, version: int = 0) -> Node:
    key = (number + 1).to_bytes(4) + version.to_bytes(4) + bytes(24)
    return Node(
        OWN,
        NodeName(f"n{number}"),
        ClusterId(1),
        (NodeAddress(INTERNAL_IP, parse_address(f"192.0.{number >> 8}.{number & 255}")),),
        wireguard_public_key=base64.b64encode(key).decode(),
    )


def reconcile() -> Iterator[Figure]:
    """From nodes in the mesh to peers in the device."""
    with topology.namespace("wg") as space, keeper(space) as directory:
        device, key = opened(space, "ist_wg0", directory, 51871)

        async def call(function: Callable[..., T], *arguments: object) -> T:
            return await asyncio.to_thread(in_space, space, lambda: function(*arguments))

        async def run() -> tuple[float, list[float]]:
            peers = Peers(OWN, key, lambda changed: table.mark(changed))
            target = PeerTable(device, call)
            table: Table[PublicKey, Peer] = Table(
                "wireguard", target, peers, clock=time.monotonic, draw=lambda: 0.5
            )
            loop = Loop((table,))
            await loop.round()
            table.allow_prune()
            begun = time.monotonic()
            for number in range(NODES):
                peers.put(_node(number))
                host = parse_address(f"192.0.{number >> 8}.{number & 255}")
                prefix = parse_prefix(f"10.{number >> 8}.{number & 255}.0/24")
                peers.set_prefix(prefix, host)
            await loop.round()
            all_s = time.monotonic() - begun
            assert len(await target.read()) == NODES
            ones = []
            for turn in range(1, ROUNDS + 1):
                begun = time.monotonic()
                peers.put(_node(turn, turn))  # a node with another key
                await loop.round()
                ones.append((time.monotonic() - begun) * 1000)
            assert len(await target.read()) == NODES
            return all_s, sorted(ones)

        all_s, ones = asyncio.run(run())
    detail: dict[str, object] = {"peers": NODES, "by": device.kind}
    yield Figure("encrypt.reconcile_1000_s", round(all_s, 3), "s", detail)
    yield Figure(
        "encrypt.reconcile_1_ms", round(ones[len(ones) // 2], 2), "ms", detail | {"max": ones[-1]}
    )


def ipsec_reconcile() -> Iterator[Figure]:
    """Policies of IPsec into the kernel; states need ESP, which not every kernel has."""
    with topology.namespace("xfrm") as space:
        own = parse_address("192.0.2.1")

        async def call(function: Callable[..., T], *arguments: object) -> T:
            return await asyncio.to_thread(in_space, space, lambda: function(*arguments))

        def rows(number: int, key_id: int) -> dict[PolicyId, Policy]:
            address = parse_address(f"10.{number >> 8}.{number & 255}.1")
            peer = ipsec.Peer(End(address, "0" * 36), number + 1, key_id)
            return ipsec.desired_policies(own, [peer], [key_id])

        async def run() -> tuple[float, list[float]]:
            wanted: dict[PolicyId, Policy] = {}
            target = Policies(call)
            table: Table[PolicyId, Policy] = Table(
                "ipsec-policies", target, wanted, clock=time.monotonic, draw=lambda: 0.5
            )
            loop = Loop((table,))
            await loop.round()
            table.allow_prune()
            begun = time.monotonic()
            for number in range(NODES):
                wanted.update(rows(number, 3))
            table.mark_all()
            await loop.round()
            all_s = time.monotonic() - begun
            assert dict(await target.read()) == wanted
            ones = []
            for turn in range(ROUNDS):
                begun = time.monotonic()
                for key in rows(turn, 3).keys() - rows(turn, 4).keys():
                    del wanted[key]
                    table.mark(key)
                for key, row in rows(turn, 4).items():  # its key has changed
                    wanted[key] = row
                    table.mark(key)
                await loop.round()
                ones.append((time.monotonic() - begun) * 1000)
            assert dict(await target.read()) == wanted
            return all_s, sorted(ones)

        all_s, ones = asyncio.run(run())
    detail: dict[str, object] = {"peers": NODES, "of": "policies"}
    yield Figure("encrypt.ipsec_reconcile_1000_s", round(all_s, 3), "s", detail)
    yield Figure(
        "encrypt.ipsec_reconcile_1_ms",
        round(ones[len(ones) // 2], 2),
        "ms",
        detail | {"max": round(ones[-1], 2)},
    )


def _pod_space(lab: str, address: str) -> str:
    for path in Path("/run/netns").glob(f"ist-{lab}-p-*"):
        if f" {address}/" in topology.ip(path.name, "-o", "-4", "address"):
            return path.name
    raise RuntimeError(f"no pod of lab {lab} has {address}")


@contextmanager
def _bare_tunnel(one: str, two: str) -> Iterator[str]:
    """A tunnel of its own between two namespaces; gives the address of its far end."""
    with ExitStack() as stack:
        ends = []
        for space in (one, two):
            directory = stack.enter_context(keeper(space))
            device, key = opened(space, BARE, directory, 51899)
            ends.append((space, device, key))
        for number, (space, device, _) in enumerate(ends, 1):
            other_space, _, other_key = ends[2 - number]
            shown = json.loads(topology.ip(other_space, "-j", "-4", "address", "show", "eth0"))
            host = parse_address(shown[0]["addr_info"][0]["local"])
            far = parse_prefix(f"192.168.77.{3 - number}/32")
            change = PeerChange(other_key, endpoint=host, port=51899, add=(far,))
            errors = in_space(space, lambda d=device, c=change: d.change([c]))  # type: ignore[misc]
            if errors:
                raise RuntimeError(str(errors))
            topology.ip(space, "address", "add", f"192.168.77.{number}/30", "dev", BARE)
        yield "192.168.77.2"


def _stream(mesh: story.Mesh, one: dict[str, str], two: dict[str, str]) -> Figure:
    with ExitStack() as stack:
        far = stack.enter_context(_bare_tunnel(one["node"], two["node"]))
        stack.enter_context(topology.server(two["node"], far))
        stack.enter_context(topology.server(two["space"], two["ip"]))
        samples = interleave(
            RUNS,
            {
                "ours": lambda: topology.client(one["space"], "stream", two["ip"], SECONDS),
                "peer": lambda: topology.client(one["node"], "stream", far, SECONDS),
            },
        )
    return ratio("encrypt.wg_stream_ratio", samples["ours"], samples["peer"])


def _rotation(
    mesh: story.Mesh, lab: Topology, one: dict[str, str], two: dict[str, str]
) -> Iterator[Figure]:
    """The slowest request while keys change; and what a sniffer between the nodes sees of it all,
    and while agents are killed.
    """
    program = str(Path(__file__).with_name("steady.py"))
    words, text = (two["ip"], "7099"), CANARY.decode().ljust(64, ".")
    server = subprocess.Popen(
        topology.inside(two["space"], sys.executable, program, "serve", *words),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()

        def asked(work: Callable[[], object]) -> dict[str, float]:
            client = subprocess.Popen(
                topology.inside(one["space"], sys.executable, program, "ask", *words, text),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert client.stdout is not None
            client.stdout.readline()
            work()
            said, _ = client.communicate("", timeout=60)
            found: dict[str, float] = json.loads(said.splitlines()[-1])
            return found

        quiet = asked(lambda: time.sleep(10))
        sniffer = Sniffer(lab.underlay_netns, PODS, nodes=NODE_PREFIXES)
        begun = time.monotonic()
        turned = asked(lambda: mesh.isthmus("encrypt", "rotate", "--context", story.C1))
        took_s = time.monotonic() - begun
        killed = asked(lambda: _kill_agents(mesh, lab.name))
        seen = sniffer.stop()
    finally:
        server.kill()
        server.wait()
    yield Figure(
        "encrypt.rotation_max_ms",
        round(turned["max_ms"], 1),
        "ms",
        {
            "without_rotation_ms": round(quiet["max_ms"], 1),
            "requests": turned["count"],
            "rotation_s": round(took_s, 1),
        },
    )
    if seen.missed or not seen.wireguard:
        raise RuntimeError(f"the sniffer missed {seen.missed} frames of {seen.frames}")
    yield Figure(
        "encrypt.leaked_bytes",
        seen.leaked_bytes,
        "bytes",
        {
            "frames": seen.frames,
            "bytes": seen.bytes,
            "agents_killed_max_ms": round(killed["max_ms"], 1),
        },
    )


def _kill_agents(mesh: story.Mesh, lab: str) -> None:
    before = agents(lab)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(set(agents(lab)) - set(before)) < len(before):
        if time.monotonic() > deadline:
            raise RuntimeError("agents do not come back")
        time.sleep(0.2)
    time.sleep(5)


def measure() -> Iterator[Figure]:
    """Peers into a device; then two joined clusters that encrypt."""
    yield from reconcile()
    yield from ipsec_reconcile()
    with joined_lab("enable-wireguard=true") as (mesh, lab):
        nodes = {node.name: node.netns for node in lab.nodes}
        ends = []
        for context in (story.C1, story.C2):
            pod = mesh.pods(context, "name=x-wing")[0]
            address = pod["status"]["podIP"]
            ends.append(
                {
                    "ip": address,
                    "space": _pod_space(lab.name, address),
                    "node": nodes[pod["spec"]["nodeName"]],
                }
            )
        yield _stream(mesh, *ends)
        yield from _rotation(mesh, lab, *ends)
