"""Encryption: peers into a device, the stream against a bare tunnel, requests while keys change."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import encrypt_tables, topology
from bench.figure import Figure, interleave, ratio
from bench.lab import joined_lab
from bench.wireguard_devices import bare, in_space
from encryption.device import PeerChange
from kind import story
from kind.lab.topology import Topology
from model.address import parse_address, parse_prefix
from tests.support.sniffer import CANARY, Sniffer
from tests.support.wireguard_world import NODES as NODE_PREFIXES
from tests.support.wireguard_world import PODS, agents

RUNS = 5
SECONDS = 2.0
BARE = "ist_wg7"


def _pod_space(lab: str, address: str) -> str:
    for path in Path("/run/netns").glob(f"ist-{lab}-p-*"):
        if f" {address}/" in topology.ip(path.name, "-o", "-4", "address"):
            return path.name
    raise RuntimeError(f"no pod of lab {lab} has {address}")


@contextmanager
def _bare_tunnel(one: str, two: str) -> Iterator[str]:
    """``wireguard-go`` by itself between two namespaces; gives the address of its far end."""
    with ExitStack() as stack:
        ends = []
        for space in (one, two):
            device, key = stack.enter_context(bare(space, BARE, 51899))
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


@contextmanager
def _load(one: dict[str, str], two: dict[str, str]) -> Iterator[Callable[..., dict[str, float]]]:
    """Gives a function that does something while requests go from one pod to the other, and says
    how slow they were. It raises when the connection breaks.
    """
    program = str(Path(__file__).with_name("steady.py"))
    words, text = (two["ip"], "7099"), CANARY.decode().ljust(64, ".")
    server = subprocess.Popen(
        topology.inside(two["space"], sys.executable, program, "serve", *words),
        stdout=subprocess.PIPE,
        text=True,
    )

    def asked(work: Callable[..., object], *arguments: object) -> dict[str, float]:
        client = subprocess.Popen(
            topology.inside(one["space"], sys.executable, program, "ask", *words, text),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        client.stdout.readline()
        begun = time.monotonic()
        work(*arguments)
        took_s = time.monotonic() - begun
        said, _ = client.communicate("", timeout=60)
        if client.returncode:
            raise RuntimeError("the connection did not outlive what was done")
        found: dict[str, float] = json.loads(said.splitlines()[-1])
        return found | {"took_s": took_s}

    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield asked
    finally:
        server.kill()
        server.wait()


def _changes(
    mesh: story.Mesh, lab: Topology, one: dict[str, str], two: dict[str, str]
) -> Iterator[Figure]:
    """The slowest request while keys change, and while the mesh goes to another kind; and what a
    sniffer between the nodes sees as long as it encrypts: while keys change, while that is taken
    back, and while agents are killed.
    """

    def encrypt(*words: str) -> None:
        mesh.isthmus("encrypt", *words, "--context", story.C1)

    def aborted() -> None:
        encrypt("rotate", "--no-wait")
        encrypt("rotate", "--abort")
        # A new one begins only when the one that was taken back has ended on every node.
        _patiently(lambda: encrypt("rotate", "--no-wait"))

    with _load(one, two) as asked:
        quiet = asked(time.sleep, 10)  # the same load for about as long as a change of keys takes
        cleared = asked(encrypt, "migrate", "--to", "off", "--also", story.C2)
        back = asked(encrypt, "migrate", "--to", "wireguard", "--also", story.C2)
        sniffer = Sniffer(lab.underlay_netns, PODS, nodes=NODE_PREFIXES)
        turned = asked(encrypt, "rotate")
        taken = asked(aborted)
        killed = asked(_kill_agents, lab.name)
        seen = sniffer.stop()
    detail = {"without_ms": round(quiet["max_ms"], 1)}
    yield Figure(
        "encrypt.rotation_max_ms",
        round(turned["max_ms"], 1),
        "ms",
        detail | {"requests": turned["count"], "rotation_s": round(turned["took_s"], 1)},
    )
    yield Figure(
        "encrypt.migration_max_ms",
        round(max(cleared["max_ms"], back["max_ms"]), 1),
        "ms",
        detail | {"off_s": round(cleared["took_s"], 1), "on_s": round(back["took_s"], 1)},
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
            "requests": turned["count"] + taken["count"] + killed["count"],
            "aborted_max_ms": round(taken["max_ms"], 1),
            "agents_killed_max_ms": round(killed["max_ms"], 1),
        },
    )


def _patiently(work: Callable[[], None]) -> None:
    """Again and again, until it does not fail. Raises what it raised last after a minute."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return work()
        except story.StoryError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)  # a command each time: not more often than a person would


def _kill_agents(lab: str) -> None:
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
    yield from encrypt_tables.wireguard()
    yield from encrypt_tables.ipsec_policies()
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
        yield from _changes(mesh, lab, *ends)
