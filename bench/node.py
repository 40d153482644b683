"""One node with our datapath and nothing else: a child process inside the node's namespace.

The parent (``OurNode``) sends one JSON command per line and gets one JSON answer per line, so that
a measurement can build any state without a cluster.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import topology
from model.address import parse_address, parse_prefix
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.service import Backend, Frontend, LoadBalancer, Protocol, Selection, ServiceName
from wire.bpf.layouts import TraceLevel

IDENTITY = 70000  # any identity of cluster 1


class Child:
    """The commands, inside the namespace."""

    def __init__(self, datapath: Any) -> None:
        self._datapath = datapath

    async def endpoint(self, number: int, netns: str, address: str, router: str) -> None:
        from datapath import links

        interface = f"lxcbench{number}"
        ip = parse_address(address)
        link = await asyncio.to_thread(
            links.create_endpoint_link,
            f"/run/netns/{netns}",
            "eth0",
            interface,
            (ip,),
            (parse_address(router),),
            self._datapath.device_mtu,
            self._datapath.route_mtu,
        )
        endpoint = LocalEndpoint(
            EndpointId(number),
            NumericIdentity(IDENTITY + number),
            link.ifindex,
            interface,
            link.mac,
            link.host_mac,
            (ip,),
        )
        raise_errors(await self._datapath.endpoints.upsert([(endpoint.id, endpoint)]))
        entry = IpcacheEntry(endpoint.identity)
        raise_errors(await self._datapath.ipcache.upsert([(parse_prefix(address), entry)]))
        await self._datapath.attach_endpoint(interface)

    async def remote(self, prefix: str, node: str, identity: int) -> None:
        entry = IpcacheEntry(NumericIdentity(identity), parse_address(node))
        raise_errors(await self._datapath.ipcache.upsert([(parse_prefix(prefix), entry)]))

    async def services(self, count: int, backend: str, port: int, maglev: bool) -> None:
        """``count`` services 10.101.x.y:80, all with one backend."""
        rows = []
        first = parse_address("10.101.0.10")
        for index in range(count):
            frontend = Frontend(first.offset(index), 80, Protocol.TCP)
            rows.append(
                (
                    frontend,
                    LoadBalancer(
                        frontend,
                        ServiceName("bench", f"s{index}"),
                        (Backend(parse_address(backend), port, Protocol.TCP),),
                        1,
                        Selection.MAGLEV if maglev else Selection.RANDOM,
                    ),
                )
            )
        raise_errors(await self._datapath.services.upsert(rows))

    async def policy(self, number: int, rows: int) -> None:
        """``rows`` rows of other identities and ports; the last two allow everything."""
        from model.policy_map import Direction, PolicyEntry, PolicyKey

        found = {PolicyKey(0, direction): PolicyEntry() for direction in Direction}
        for index in range(rows):
            identity = IDENTITY + 100 + index % 50
            found[PolicyKey(identity, Direction(index % 2), 6, 1000 + index, 24)] = PolicyEntry()
        raise_errors(await self._datapath.policy.upsert([(EndpointId(number), found)]))


def raise_errors(errors: Any) -> None:
    """The first failed row, as an exception."""
    for key, error in errors.items():
        raise RuntimeError(f"{key}: {error}")


async def serve(settings: dict[str, Any]) -> None:
    """Open the datapath in the current namespace and obey standard input."""
    from datapath.runtime import DatapathConfig, TraceConfig, open_datapath

    datapath = await open_datapath(
        DatapathConfig(
            pin_dir=Path(settings["pin_dir"]),
            node_ip=parse_address(settings["node_ip"]),
            router_ip=parse_address(settings["router_ip"]),
            pod_cidrs=(parse_prefix(settings["pod_cidr"]),),
            policy=settings["policy"],
            events=settings["trace"] != TraceLevel.TRACE_OFF,
            trace=TraceConfig(TraceLevel(settings["trace"])),
        )
    )
    child = Child(datapath)
    print(json.dumps({"ok": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        await getattr(child, command.pop("do"))(**command)
        print(json.dumps({"ok": True}), flush=True)


@dataclass(slots=True)
class OurNode:
    """The parent's handle."""

    process: "subprocess.Popen[str]"
    router: str

    def send(self, do: str, **words: object) -> None:
        """Run one command in the child; raises ``RuntimeError`` when it fails."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **words}) + "\n")
        self.process.stdin.flush()
        self.answer()

    def answer(self) -> None:
        """Wait for the child's line."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise RuntimeError("the node's process ended; its error is above")

    def pod(self, number: int, netns: str, address: str) -> None:
        """Attach a namespace as a pod."""
        self.send("endpoint", number=number, netns=netns, address=address, router=self.router)


@contextmanager
def our_node(
    netns: str,
    node_ip: str,
    router_ip: str,
    pod_cidr: str,
    policy: bool = False,
    trace: TraceLevel = TraceLevel.TRACE_OFF,
) -> Iterator[OurNode]:
    """Our datapath in a namespace that already has its underlay device."""
    pin_dir = f"/sys/fs/bpf/{netns}"
    settings = {
        "pin_dir": pin_dir,
        "node_ip": node_ip,
        "router_ip": router_ip,
        "pod_cidr": pod_cidr,
        "policy": policy,
        "trace": int(trace),
    }
    process = subprocess.Popen(
        topology.inside(netns, sys.executable, "-m", "bench.node", json.dumps(settings)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        node = OurNode(process, router_ip)
        node.answer()
        yield node
    finally:
        process.kill()
        process.wait()
        topology.run("rm", "-rf", pin_dir)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
