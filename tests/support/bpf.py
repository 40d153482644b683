"""The compiled programs, run on single packets by the kernel (BPF_PROG_TEST_RUN).

All three share one set of maps, as on a node. No device is involved: packets come in on interface 1
of the test's namespace, which is the pod ``A``'s as far as the maps know.
"""

import os
import platform
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scapy.config import conf
from scapy.layers.l2 import Ether

from datapath import policy_encoding as encode
from datapath import syscall
from datapath.kernel_table import KernelTable
from datapath.libbpf import BpfObject
from datapath.policy import new_policy_rows
from datapath.runtime import default_object_dir
from datapath.syscall import MapType
from model.address import pack, parse_address
from model.kernel_numbers import VXLAN_PORT, WIREGUARD_PORT
from model.policy_map import PolicyEntry, PolicyKey
from wire.bpf import layouts as w

# Whoever names no receiver gets broadcast: else scapy would ask the machine's networks for one.
conf.neighbor.resolvers.clear()

ROOT = Path(__file__).parents[2]
OK, SHOT, REDIRECT = 0, 2, 7  # what a tc program returns
PROGRAMS = (
    "from_container",
    "from_overlay",
    "from_host",
    "to_netdev",
    "from_network",
    "from_wireguard",
)
MTU = 1450
ROUTER4, ROUTER6 = "10.1.0.1", "fd00:1::1"
TCP, UDP, ICMP = 6, 17, 1
NODE_IDENTITY = 1


@dataclass(frozen=True)
class Pod:
    """A pod as the maps know it."""

    address: str
    address6: str
    ifindex: int
    identity: int
    mac: str
    node_mac: str
    number: int = 1


A = Pod("10.1.0.10", "fd00:1::10", 1, 65546, "02:00:00:00:00:0a", "02:00:00:00:f0:0a")
B = Pod("10.1.0.20", "fd00:1::20", 77, 65556, "02:00:00:00:00:0b", "02:00:00:00:f0:0b", 2)
REMOTE, REMOTE6, REMOTE_NODE, REMOTE_IDENTITY = "10.2.0.30", "fd00:2::30", "192.0.2.2", 131102
NODE = "192.0.2.1"


def address(text: str) -> bytes:
    return pack(parse_address(text))


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def now_s() -> int:
    return int(time.monotonic())


@dataclass
class Outcome:
    """What became of one packet."""

    verdict: int
    packet: Ether
    drops: list[tuple[w.DropReason, w.SourceFile]]
    forwarded: dict[w.TrafficDirection, int]
    drop_directions: list[w.TrafficDirection]
    mark: int  # that the packet leaves the program with

    @property
    def reason(self) -> w.DropReason | None:
        assert len(self.drops) <= 1
        return self.drops[0][0] if self.drops else None

    @property
    def delivered(self) -> bool:
        """Redirected into a pod."""
        return self.verdict == REDIRECT and w.TrafficDirection.DIRECTION_INGRESS in self.forwarded

    @property
    def left(self) -> bool:
        """Redirected, but not into a pod: into the tunnel, or back where it came from."""
        return self.verdict == REDIRECT and w.TrafficDirection.DIRECTION_EGRESS in self.forwarded


@dataclass
class Machine:
    """The loaded programs and their maps."""

    changes: dict[str, int | bytes] = field(default_factory=dict)
    replaced: dict[str, int] = field(default_factory=dict)  # maps to use instead, by name
    tables: dict[str, KernelTable] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    _objects: list[BpfObject] = field(default_factory=list)

    def load(self) -> "Machine":
        constants: dict[str, int | bytes] = {
            "config_router_ip4": address(ROUTER4),
            "config_router_ip6": address(ROUTER6),
            "config_vxlan_ifindex": 1,
            "config_host_ifindex": 1,
            "config_host_mac": mac("02:00:00:00:ff:01"),
            "config_native": 0,
            "config_route_mtu": MTU,
            "config_tunnel_port": VXLAN_PORT,
            "config_redirect_peer": 1,
            "config_policy": 0,
            "config_policy_keeps_flows": 0,
            "config_cidr_modes": 0,
            "config_host_policy": 0,
            "config_kubelet_port": 10250,
            "config_wireguard_port": WIREGUARD_PORT,
            "config_events": 0,
            "config_trace": 0,
            "config_trace_flags": 0xFF,
            "config_trace_interval_s": 5,
            "config_wireguard_ifindex": 1,
            "config_encrypt_nodes": 0,
            "config_ipsec": 0,
            "config_hears_ipsec": 0,
            "config_strict": 0,
            "config_strict_nodes": 0,
        }
        for name in PROGRAMS:
            self._load(default_object_dir() / f"{name}.bpf.o", constants | self.changes)
        self._load_tunnel_driver()
        return self

    def _load(self, path: Path, constants: dict[str, int | bytes]) -> None:
        opened = BpfObject(path)
        self._objects.append(opened)
        known = set(opened.constants())
        opened.set_constants({k: v for k, v in constants.items() if k in known})
        for entry in opened.maps.values():
            if entry.internal:
                continue
            entry.forget_pin_path()
            if entry.name in self.replaced:
                entry.reuse(self.replaced[entry.name])
            elif entry.name in self.tables:
                entry.reuse(self.tables[entry.name].fd)
            elif entry.name == "ist_ct":
                entry.set_max_entries(4096)
        opened.load()
        for entry in opened.maps.values():
            if not entry.internal and entry.name not in self.tables:
                self.tables[entry.name] = KernelTable(os.dup(entry.fd), entry.name)
        self.programs |= opened.programs()

    def _load_tunnel_driver(self) -> None:
        source = Path(__file__).with_name("with_tunnel_key.bpf.c")
        include = f"/usr/include/{platform.machine()}-linux-gnu"
        options = ["-O2", "-g", "-target", "bpf", "-isystem", include]
        with tempfile.TemporaryDirectory(prefix="ist-t-") as directory:
            target = Path(directory) / "with_tunnel_key.o"
            subprocess.run(["clang", *options, "-c", source, "-o", target], check=True)
            self._load(target, {})
        following = struct.pack("=I", self.programs["from_overlay"])
        syscall.map_update(self.tables["ist_t_next"].fd, bytes(4), following)

    def close(self) -> None:
        for table in self.tables.values():
            table.close()
        for opened in self._objects:
            opened.close()

    def clear(self) -> None:
        """Forget every row; the programs stay."""
        for name, table in self.tables.items():
            if name not in ("ist_forwarded", "ist_scratch", "ist_t_next", "ist_events", "ist_lost"):
                table.remove([key for key, _ in _walk(table)])

    def run(
        self,
        program: str,
        packet: Any,
        *,
        vni: int | None = None,
        gso_size: int = 0,
        mark: int = 0,
    ) -> Outcome:
        """One packet through one program. ``vni``: it comes out of the tunnel as this identity."""
        context = bytearray(192)
        struct.pack_into("=I", context, 8, mark)
        if gso_size:
            struct.pack_into("=I", context, 164, 2)
            struct.pack_into("=I", context, 176, gso_size)
        if vni is not None:
            assert program == "from_overlay"
            struct.pack_into("=I", context, 32, vni)
            program = "with_tunnel_key"
        before = self._forwarded()
        done = syscall.prog_test_run(self.programs[program], bytes(packet), bytes(context))
        after = self._forwarded()
        drops = self._take_drops()
        return Outcome(
            done.verdict,
            Ether(done.data),
            [(w.DropReason(row.reason), w.SourceFile(row.file)) for row in drops],
            {d: after[d] - before[d] for d in after if after[d] != before[d]},
            [w.TrafficDirection(row.direction) for row in drops],
            struct.unpack_from("=I", done.context, 8)[0],
        )

    def _forwarded(self) -> dict[w.TrafficDirection, int]:
        return {
            w.TrafficDirection(d): _packets(value)
            for d in (1, 2, 3)
            if (value := self.tables["ist_forwarded"].get(struct.pack("=I", d))) is not None
        }

    def _take_drops(self) -> list[w.MetricsKey]:
        table, found = self.tables["ist_metrics"], list[w.MetricsKey]()
        for key, value in list(table.rows()):
            row = w.MetricsKey.parse(key)
            assert row.line > 0
            found += [row] * _packets(value)
            table.remove([key])
        return found

    # What the agent writes

    def put(self, table: str, key: bytes, value: bytes) -> None:
        assert self.tables[table].write([(key, value)]) == {}

    def pod(self, pod: Pod) -> None:
        row = w.EndpointValue(
            pod.ifindex, pod.identity, pod.number, 0, mac(pod.mac), mac(pod.node_mac)
        )
        self.put("ist_endpoints", address(pod.address), row.pack())
        self.put("ist_endpoints", address(pod.address6), row.pack())
        interface = w.InterfaceValue(
            address(pod.address),
            address(pod.address6),
            pod.identity,
            pod.number,
            row.mac,
            row.node_mac,
        )
        self.put("ist_interfaces", struct.pack("=I", pod.ifindex), interface.pack())

    def host(self, text: str) -> None:
        row = w.EndpointValue(0, NODE_IDENTITY, 0, 1, bytes(6), bytes(6))
        self.put("ist_endpoints", address(text), row.pack())

    def remote(
        self, text: str, identity: int, node: str | None = REMOTE_NODE, encrypt_key: int = 0
    ) -> None:
        tunnel = bytes(16) if node is None else address(node)
        row = w.IpcacheValue(tunnel, identity, 0, encrypt_key, 0)
        self.put("ist_ipcache", address(text), row.pack())

    def backend(self, number: int, text: str, port: int, protocol: int = TCP, state: int = 0):
        row = w.BackendValue(address(text), port, protocol, state, 0)
        self.put("ist_backends", struct.pack("=I", number), row.pack())

    def service(
        self,
        text: str,
        port: int,
        backends: list[int],
        *,
        protocol: int = TCP,
        revnat: int = 9,
        flags: int = 0,
        affinity_s: int = 0,
    ) -> None:
        for slot, number in enumerate(backends, start=1):
            key = w.ServiceKey(address(text), port, slot, protocol, 0)
            self.put("ist_services", key.pack(), w.ServiceValue(number, 0, 0, revnat, 0).pack())
            if flags & w.ServiceFlags.SERVICE_AFFINITY:
                match = w.AffinityMatchKey(number, revnat).pack()
                self.put("ist_aff_match", match, b"\1")
        row = w.RevnatValue(address(text), port)
        self.put("ist_revnat", struct.pack("=I", revnat), row.pack())
        key = w.ServiceKey(address(text), port, 0, protocol, 0)
        master = w.ServiceValue(0, affinity_s, len(backends), revnat, flags)
        self.put("ist_services", key.pack(), master.pack())

    def maglev(self, revnat: int, table: bytes) -> None:
        inner = syscall.map_create(MapType.ARRAY, 4, len(table), 1, name="ist_t_maglev")
        try:
            syscall.map_update(inner, bytes(4), table)
            self.put("ist_maglev", struct.pack("=I", revnat), struct.pack("=I", inner))
        finally:
            os.close(inner)

    def policy(self, number: int, rows: Mapping[PolicyKey, PolicyEntry]) -> None:
        """Replace what an endpoint may do."""
        inner = new_policy_rows()
        try:
            table = KernelTable(os.dup(inner), "ist_t_policy")
            written = [(encode.key(k), encode.value(k, entry)) for k, entry in rows.items()]
            assert table.write(written) == {}
            table.close()
            self.put("ist_policy", struct.pack("=I", number), struct.pack("=I", inner))
        finally:
            os.close(inner)

    def policy_traffic(self, number: int) -> dict[PolicyKey, tuple[int, int]]:
        """Packets and bytes of every row."""
        found = self.tables["ist_policy"].get(struct.pack("=I", number))
        assert found is not None
        table = KernelTable(syscall.map_by_id(struct.unpack("=I", found)[0]), "ist_t_policy")
        try:
            return {
                encode.parse_key(k): (t.packets, t.bytes)
                for k, v in table.rows()
                for _, t in (encode.parse_value(v),)
            }
        finally:
            table.close()

    # What the programs write

    def flows(self) -> dict[tuple[str, int, str, int, int, w.ConntrackScope], w.ConntrackValue]:
        found = {}
        for key, value in self.tables["ist_ct"].rows():
            k = w.ConntrackKey.parse(key)
            source, destination = _text(k.source), _text(k.destination)
            name = (source, k.source_port, destination, k.destination_port, k.protocol)
            found[(*name, w.ConntrackScope(k.scope))] = w.ConntrackValue.parse(value)
        return found

    def flow(self, scope: w.ConntrackScope) -> w.ConntrackValue:
        """The only flow of a scope."""
        (found,) = [v for k, v in self.flows().items() if k[5] is scope]
        return found

    def change_flow(self, scope: w.ConntrackScope, **changes: int) -> None:
        """As if time, or another packet, had passed."""
        for key, value in list(self.tables["ist_ct"].rows()):
            if w.ConntrackKey.parse(key).scope == scope:
                changed = w.ConntrackValue.parse(value)._replace(**changes)
                self.put("ist_ct", key, changed.pack())


def _text(data: bytes) -> str:
    from model.address import unpack

    return str(unpack(data))


def _walk(table: KernelTable) -> list[tuple[bytes, bytes]]:
    return list(table.rows())


def _packets(value: bytes) -> int:
    """Over all CPUs."""
    return sum(packets for packets, _ in struct.iter_unpack("=QQ", value))
