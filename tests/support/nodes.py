"""Nodes and pods made of namespaces, with the real programs: the stage of tests/netns.

A node has its own network namespace, kernel thread and pin directory; its datapath is opened as the
agent opens it. Everything is gone when the stage is left, and that is checked.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from datapath import links, namespaces, pins, runtime
from datapath.kernel_thread import KernelThread
from datapath.routes import Route
from datapath.runtime import Datapath, DatapathConfig
from model.address import Address, host_prefix, parse_address, parse_prefix
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import IpcacheEntry
from model.kernel_numbers import ENDPOINT_PREFIX

_TRAFFIC = Path(__file__).with_name("traffic.py")
_PYTHON = os.path.realpath(sys.executable)  # the real interpreter: no shim in every namespace
_numbers = count()
SIZES: dict[str, int] = {}
PATIENCE_S = 10.0  # with whoever answers, on a machine that others use as well


def sh(command: str) -> str:
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
    return done.stdout


def new_namespace(label: str) -> str:
    name = f"ist-t-{os.getpid()}-{next(_numbers)}-{label}"
    sh(f"ip netns add {name}")
    return name


def netns_path(name: str) -> str:
    return f"/run/netns/{name}"


def enter(thread: KernelThread, name: str) -> None:
    def work() -> None:
        fd = os.open(netns_path(name), os.O_RDONLY)
        try:
            namespaces.enter(fd, name)
        finally:
            os.close(fd)

    thread.submit(work).result(timeout=30)


@dataclass
class Process:
    """A traffic program that runs in a namespace."""

    child: "subprocess.Popen[str]"

    def ready(self) -> "Process":
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n"
        return self

    def finish(self, timeout_s: float = 60) -> Any:
        """End its input, and take the JSON line it prints last."""
        out, err = self.child.communicate("", timeout=timeout_s)
        assert self.child.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()


@dataclass
class Pod:
    """A namespace behind a pair of devices, with an address and an identity."""

    name: str
    namespace: str
    address: Address
    identity: NumericIdentity
    node: "Node"
    link: links.EndpointLink
    interface: str
    processes: list[Process] = field(default_factory=list)

    def start(self, *arguments: object, patience_s: float = PATIENCE_S) -> Process:
        """A client waits for an answer for ``patience_s``."""
        command = ["ip", "netns", "exec", self.namespace, _PYTHON, str(_TRAFFIC)]
        process = Process(
            subprocess.Popen(
                [*command, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "TRAFFIC_PATIENCE_S": str(patience_s)},
            )
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: object, patience_s: float = PATIENCE_S) -> Any:
        return self.start(*arguments, patience_s=patience_s).finish()

    def try_(self, *arguments: object) -> Any:
        """``run`` of what is not answered."""
        return self.run(*arguments, patience_s=2.0)

    def serve(self, protocol: str = "tcp", port: int = 8080) -> None:
        self.start(f"serve-{protocol}", self.address, port, self.name).ready()

    def sh(self, command: str) -> str:
        return sh(f"ip netns exec {self.namespace} {command}")


@dataclass
class Node:
    """A node as the agent sees its own."""

    name: str
    namespace: str
    config: DatapathConfig
    thread: KernelThread
    datapath: Datapath
    stage: "Stage"
    pods: list[Pod] = field(default_factory=list)

    async def add_pod(self, name: str, identity: int) -> Pod:
        number = len(self.pods) + 2
        address = self.config.pod_cidrs[0].network_address.offset(number)
        namespace = new_namespace(name)
        interface = f"{ENDPOINT_PREFIX}{os.getpid():07d}{next(_numbers):05d}"[:15]
        link = await self.thread.call(
            links.create_endpoint_link,
            *(netns_path(namespace), "eth0", interface, [address], self.config.routers),
            *(self.datapath.device_mtu, self.datapath.route_mtu),
        )
        pod = Pod(name, namespace, address, NumericIdentity(identity), self, link, interface)
        self.pods.append(pod)
        endpoint = LocalEndpoint(
            EndpointId(number),
            pod.identity,
            *(link.ifindex, interface, link.mac, link.host_mac, (address,)),
        )
        assert await self.datapath.endpoints.upsert([(endpoint.id, endpoint)]) == {}
        await self.datapath.attach_endpoint(interface)
        for node in self.stage.nodes:
            remote = None if node is self else self.config.node_ip
            entry = IpcacheEntry(pod.identity, remote)
            assert await node.datapath.ipcache.upsert([(host_prefix(address), entry)]) == {}
        return pod

    async def reopen(self, **changes: Any) -> None:
        """As an agent that was started again, perhaps of another version."""
        self.config = replace(self.config, **changes)
        before = self.datapath
        self.datapath = await runtime.open_datapath(self.config, self.thread)
        before._programs.close()

    def sh(self, command: str) -> str:
        return sh(f"ip netns exec {self.namespace} {command}")

    async def drops(self) -> dict[tuple[int, int], int]:
        """Dropped packets by reason and direction."""
        return {
            (c.reason, c.direction): c.packets for c in await self.datapath.metrics() if c.reason
        }


@dataclass
class Stage:
    """All nodes, on one underlay."""

    nodes: list[Node] = field(default_factory=list)


@asynccontextmanager
async def two_nodes(mtu: int = 1500, **settings: Any) -> AsyncIterator[Stage]:
    """Nodes 172.31.0.1 and .2 on one wire, pod CIDRs 10.201.1.0/24 and 10.201.2.0/24."""
    stage = Stage()
    async with AsyncExitStack() as stack:
        spaces = [new_namespace(f"n{n}") for n in (1, 2)]
        for space in spaces:
            stack.callback(sh, f"ip netns del {space}")
        _wire(spaces, mtu)
        for number, space in enumerate(spaces, start=1):
            await _open_node(stage, stack, number, space, settings)
        await _introduce(stage)
        try:
            yield stage
        finally:
            for node in stage.nodes:
                for pod in node.pods:
                    for process in pod.processes:
                        process.kill()
                    sh(f"ip netns del {pod.namespace}")


def _wire(spaces: list[str], mtu: int) -> None:
    one, two = spaces
    sh(
        f"ip netns exec {one} ip link add under0 mtu {mtu} type veth"
        f" peer name under0 mtu {mtu} netns {two}"
    )
    for number, space in enumerate(spaces, start=1):
        sh(
            f"ip netns exec {space} bash -ec 'ip link set lo up; ip link set under0 up;"
            f" ip addr add 172.31.0.{number}/24 dev under0'"
        )


async def _open_node(
    stage: Stage, stack: AsyncExitStack, number: int, space: str, settings: dict[str, Any]
) -> None:
    thread = KernelThread(f"node{number}")
    stack.callback(thread.close)
    enter(thread, space)
    pin_dir = Path(f"/sys/fs/bpf/{space}")
    stack.callback(pins.remove_tree, pin_dir)
    config = DatapathConfig(
        node_ip=parse_address(f"172.31.0.{number}"),
        router_ip=parse_address(f"10.201.{number}.1"),
        pod_cidrs=(parse_prefix(f"10.201.{number}.0/24"),),
        service_cidr=parse_prefix("10.202.0.0/16"),
        pin_dir=pin_dir,
        map_sizes=SIZES,
        **settings,
    )
    opened = await runtime.open_datapath(config, thread)
    node = Node(f"node{number}", space, config, thread, opened, stage)
    stack.callback(lambda: node.datapath._programs.close())
    stage.nodes.append(node)


async def _introduce(stage: Stage) -> None:
    """What the agent programs about nodes: host addresses, ipcache, routes."""
    for node in stage.nodes:
        own: list[Address] = [node.config.node_ip, node.config.router_ip]
        rows = [(a, NumericIdentity(ReservedIdentity.HOST)) for a in own]
        assert await node.datapath.host_addresses.upsert(rows) == {}
        for other in stage.nodes:
            here = other is node
            route = Route(source=node.config.router_ip, mtu=node.datapath.route_mtu)
            if node.config.native and not here:
                route = Route(node.datapath.devices.underlay, gateway=other.config.node_ip)
            prefix = other.config.pod_cidrs[0]
            assert await node.datapath.routes.upsert([(prefix, route)]) == {}
            identity = ReservedIdentity.HOST if here else ReservedIdentity.REMOTE_NODE
            entries = [
                (host_prefix(other.config.node_ip), IpcacheEntry(NumericIdentity(identity))),
                (
                    host_prefix(other.config.router_ip),
                    IpcacheEntry(NumericIdentity(identity), None if here else other.config.node_ip),
                ),
            ]
            assert await node.datapath.ipcache.upsert(entries) == {}
