"""The datapath of one node: opened by the agent, outliving it. Adapter.

``open_datapath`` makes devices, loads and attaches programs on pinned maps, and hands out tables.
Repeating it replaces programs under running traffic without a gap. ``close`` leaves everything in
the kernel; only ``remove_all`` takes it away.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from datapath import devices, links, map_names, metrics, pins, probes, programs
from datapath.attach import Attacher, Attachment, AttachMode
from datapath.cidr_rules import CidrRulesTable
from datapath.conntrack import Conntrack
from datapath.devices import Devices
from datapath.encryption_tables import EncryptViaTable, NodeTable, StrictTable
from datapath.kernel_thread import KernelThread
from datapath.policy import PolicyTable, open_missing
from datapath.programs import Programs
from datapath.routes import RouteTable
from datapath.service_rows import Map
from datapath.services import ServiceTable
from datapath.syscall import AttachType
from datapath.tables import AddressSet, EndpointTable, HostAddressTable, IpcacheTable
from model.address import Address, Prefix, pack
from model.endpoint import EndpointId
from model.identity import NumericIdentity, ReservedIdentity
from model.kernel_numbers import VXLAN_PORT, WIREGUARD_PORT
from wire.bpf.layouts import PolicyCidrModes, TraceLevel

_log = logging.getLogger("isthmus.datapath")

DEFAULT_PIN_DIR = Path("/sys/fs/bpf/isthmus")
_NETWORK_PROGRAMS = (
    programs.PROGRAM_NETWORK,
    programs.PROGRAM_FROM_NETWORK,
    programs.PROGRAM_FROM_WIREGUARD,
    programs.PROGRAM_OVERLAY,
)
OBJECT_DIR_VARIABLE = "ISTHMUS_BPF_DIR"


def default_object_dir() -> Path:
    """Where the compiled programs are: what the environment says, or this checkout's build."""
    said = os.environ.get(OBJECT_DIR_VARIABLE)
    return Path(said) if said else Path(__file__).resolve().parent.parent / "bpf" / "build"


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """What user space is told of packets that pass."""

    level: TraceLevel = TraceLevel.TRACE_CHANGES
    interval_s: int = 5  # TRACE_CHANGES: a flow that lives is told this often, in each direction
    tcp_flags: int = 0xFF  # TRACE_CHANGES: and when it shows one of these for the first time


@dataclass(frozen=True, slots=True)
class Encryption:
    """By what that leaves the node is encrypted, and what is decrypted.

    With both, a packet is for IPsec where its node's row has a key, else for WireGuard.
    """

    ifindex: int  # of the WireGuard device, which must exist; 0: nothing is sent by it
    overhead_bytes: int  # of what is sent, or will be
    names: tuple[str, ...] = ()  # of all WireGuard's devices: while keys change there are two
    ipsec: bool = False  # the tunnel's packets are marked for the kernel's IPsec
    hears_ipsec: bool = False  # what comes in is marked for it
    nodes: bool = False  # also what nodes send to nodes
    strict: bool = False  # what would leave in clear text is dropped
    strict_nodes: bool = False  # except to and from nodes


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """What the node itself sends and receives is judged, too."""

    kubelet_port: int = 10250  # which the API server always reaches


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """What a node's datapath depends on."""

    node_ip: Address
    router_ip: Address
    router_ip6: Address | None = None  # None: this node is of one family
    pod_cidrs: tuple[Prefix, ...] = ()
    service_cidr: Prefix | None = None
    underlay: str | None = None  # None: the device that holds ``node_ip``
    devices: tuple[str, ...] = ()  # that lead to other nodes; none: the underlay
    native: bool = False  # no tunnel: routes lead to other nodes' pods
    mtu: int | None = None  # None: that of the underlay
    node_identity: NumericIdentity = NumericIdentity(ReservedIdentity.HOST)
    pin_dir: Path = DEFAULT_PIN_DIR
    object_dir: Path = field(default_factory=default_object_dir)
    map_sizes: Mapping[str, int] = field(default_factory=dict)  # by map name; overrides the object
    redirect_peer: bool = True  # deliver into the pod's namespace without its host end's queue
    attach_mode: AttachMode | None = None  # None: tcx where the kernel has it
    policy: bool = False  # ask policy; an endpoint without rows is closed
    policy_opens: tuple[EndpointId, ...] = ()  # open until they have rows: nobody asked so far
    policy_keeps_flows: bool = False  # a flow that was allowed once stays so
    cidr_nodes: bool = False  # rules of prefixes select nodes by their addresses
    cidr_pods: bool = False  # and pods by theirs
    host_policy: HostPolicy | None = None  # None: what the node itself does is not judged
    events: bool = False  # tell drops and verdicts to user space
    trace: TraceConfig = field(default_factory=TraceConfig)  # with ``events``: what passes, too
    encryption: Encryption | None = None

    @property
    def routers(self) -> tuple[Address, ...]:
        """The router's address of each family."""
        return (self.router_ip,) if self.router_ip6 is None else (self.router_ip, self.router_ip6)


class Datapath:
    """The open datapath of this node."""

    def __init__(
        self,
        config: DatapathConfig,
        thread: KernelThread,
        found: Devices,
        loaded: Programs,
        attacher: Attacher,
    ) -> None:
        self.config = config
        self.devices = found
        self.messages = loaded.messages  # what a person should know of this start
        self._thread = thread
        self._programs = loaded
        self._attacher = attacher
        tables = loaded.tables
        self.ipcache = IpcacheTable(
            thread, tables[map_names.IPCACHE], tables[map_names.IPCACHE_PREFIXES]
        )
        self.endpoints = EndpointTable(
            thread, tables[map_names.ENDPOINTS], tables[map_names.INTERFACES]
        )
        self.host_addresses = HostAddressTable(thread, tables[map_names.ENDPOINTS])
        self.services = ServiceTable(
            thread,
            {
                Map.BACKENDS: tables[map_names.BACKENDS],
                Map.SERVICES: tables[map_names.SERVICES],
                Map.AFFINITY_MATCH: tables[map_names.AFFINITY_MATCH],
                Map.MAGLEV: tables[map_names.MAGLEV],
                Map.REVNAT: tables[map_names.REVNAT],
            },
            tables[map_names.CONNTRACK],
        )
        self.policy = PolicyTable(thread, tables[map_names.POLICY])
        self.cidr_rules = CidrRulesTable(thread, tables[map_names.CIDR_RULES])
        self.api_servers = AddressSet(thread, tables[map_names.API_SERVERS])
        self.routes = RouteTable(thread)
        self.encrypt_via = EncryptViaTable(thread, tables[map_names.ENCRYPT_VIA])
        self.strict = StrictTable(thread, tables[map_names.STRICT])
        self.nodes = NodeTable(thread, tables[map_names.NODES])
        self.conntrack = Conntrack(thread, tables[map_names.CONNTRACK])

    @property
    def device_mtu(self) -> int:
        """MTU of pods' devices."""
        return self.devices.device_mtu

    @property
    def underlays(self) -> tuple[str, ...]:
        """Devices that lead to other nodes."""
        return self.config.devices or (self.devices.underlay,)

    @property
    def route_mtu(self) -> int:
        """MTU of pods' routes and of routes to pods."""
        return self.devices.route_mtu

    async def attach_endpoint(self, interface: str) -> None:
        """Make a pod's packets go through our program. Repeatable; replaces without a gap."""
        program = self._programs.fds[programs.PROGRAM_CONTAINER]
        await self._thread.call(self._attacher.attach, _of_endpoint(interface), program)

    async def detach_endpoint(self, interface: str) -> None:
        """Forget an endpoint whose device is gone. A device that lives keeps its program."""
        await self._thread.call(self._detach, interface)

    def _detach(self, interface: str) -> None:
        wanted = _of_endpoint(interface)
        if not self._attacher.is_live(wanted):
            self._attacher.detach(wanted)

    async def attach_wireguard(self, device: str) -> None:
        """Take what a second device has decrypted. Repeatable."""
        program = self._programs.fds[programs.PROGRAM_FROM_WIREGUARD]
        await self._thread.call(self._attacher.attach, _of_wireguard(device), program)

    async def metrics(self) -> list[metrics.Counter]:
        """What the programs counted since they were first loaded."""
        tables = self._programs.tables
        return await self._thread.call(
            metrics.read_metrics, tables[map_names.METRICS], tables[map_names.FORWARDED]
        )

    async def own_addresses(self) -> set[Address]:
        """The node's addresses as its devices have them now."""
        return await self._thread.call(devices.own_addresses)

    def close(self) -> None:
        """Release descriptors and the thread; everything in the kernel stays and works."""
        self._thread.close()
        self._programs.close()


def _of_wireguard(device: str) -> Attachment:
    return Attachment(programs.PROGRAM_FROM_WIREGUARD, AttachType.TCX_INGRESS, device)


def _of_endpoint(interface: str) -> Attachment:
    return Attachment(programs.PROGRAM_CONTAINER, AttachType.TCX_INGRESS, interface)


async def open_datapath(config: DatapathConfig, thread: KernelThread | None = None) -> Datapath:
    """Bring the node's datapath up, or take over the one that runs. Idempotent.

    ``thread``: where kernel calls happen; its network namespace is the node's.
    """
    own = thread or KernelThread()
    with ExitStack() as undo:
        if thread is None:
            undo.callback(own.close)
        opened = await own.call(_open, config, own)
        undo.pop_all()
        return opened


def _open(config: DatapathConfig, thread: KernelThread) -> Datapath:
    pins.prepare(config.pin_dir)
    encryption = config.encryption
    found = devices.ensure_devices(
        config.node_ip,
        config.routers,
        config.underlay,
        config.mtu,
        encryption.overhead_bytes if encryption else 0,
        native=config.native,
    )
    loaded = programs.load_programs(
        config.object_dir, config.pin_dir, _constants(config, found), config.map_sizes
    )
    with ExitStack() as undo:
        undo.callback(loaded.close)
        if config.policy:
            open_missing(loaded.tables[map_names.POLICY], config.policy_opens)
        mode = config.attach_mode or (AttachMode.TCX if probes.has_tcx() else AttachMode.CLSACT)
        attacher = Attacher(config.pin_dir, mode)
        attacher.drop_dead()
        network = _network_attachments(config, found)
        for wanted in (programs.HOST_ATTACHMENT, *network):
            attacher.attach(wanted, loaded.fds[wanted.program])
        for wanted in attacher.attached():
            if wanted.program == programs.PROGRAM_CONTAINER:
                attacher.attach(wanted, loaded.fds[wanted.program])
        for retired in attacher.attached():
            is_network = retired.program in _NETWORK_PROGRAMS
            # Of an earlier version, whose work is done by now, or of what is off.
            if retired.program not in loaded.fds or (is_network and retired not in network):
                attacher.detach(retired)
        loaded.commit()
        undo.pop_all()
    for message in loaded.messages:
        _log.warning("datapath.map_replaced %s", message)
    return Datapath(config, thread, found, loaded, attacher)


def _network_attachments(config: DatapathConfig, found: Devices) -> tuple[Attachment, ...]:
    """What stands between this node and others, receivers first."""
    encryption, judged, out = config.encryption, config.host_policy, list[Attachment]()
    names = config.devices or (found.underlay,)
    if not config.native:
        out.append(programs.TUNNEL_ATTACHMENT)
    if config.native or judged or (encryption and encryption.hears_ipsec):
        program = programs.PROGRAM_FROM_NETWORK
        out += [Attachment(program, AttachType.TCX_INGRESS, name) for name in names]
    if encryption:
        out += [_of_wireguard(name) for name in encryption.names]
    if judged or (encryption and (encryption.ifindex or encryption.ipsec)):
        program = programs.PROGRAM_NETWORK
        out += [Attachment(program, AttachType.TCX_EGRESS, name) for name in names]
    return tuple(out)


def _constants(config: DatapathConfig, found: Devices) -> dict[str, int | bytes]:
    """Values of the `const volatile` globals of `bpf/lib/config.h`."""
    encryption, host_policy = config.encryption, config.host_policy
    routers = {router.version: pack(router) for router in config.routers}
    return {
        "config_router_ip4": routers.get(4, bytes(16)),
        "config_router_ip6": routers.get(6, bytes(16)),
        "config_vxlan_ifindex": found.vxlan_ifindex,
        "config_host_ifindex": found.host_ifindex,
        "config_host_mac": found.host_mac,
        "config_native": int(config.native),
        "config_route_mtu": found.route_mtu,
        "config_tunnel_port": VXLAN_PORT,
        "config_redirect_peer": int(config.redirect_peer),
        "config_policy": int(config.policy),
        "config_policy_keeps_flows": int(config.policy_keeps_flows),
        "config_cidr_modes": PolicyCidrModes.CIDR_NODES * config.cidr_nodes
        | PolicyCidrModes.CIDR_PODS * config.cidr_pods,
        "config_host_policy": int(config.policy and host_policy is not None),
        "config_kubelet_port": host_policy.kubelet_port if host_policy else 0,
        "config_events": int(config.events),
        "config_trace": int(config.trace.level) if config.events else 0,
        "config_trace_flags": config.trace.tcp_flags,
        "config_trace_interval_s": config.trace.interval_s,
        "config_wireguard_port": WIREGUARD_PORT,
        "config_wireguard_ifindex": encryption.ifindex if encryption else 0,
        "config_encrypt_nodes": int(encryption is not None and encryption.nodes),
        "config_ipsec": int(encryption is not None and encryption.ipsec),
        "config_hears_ipsec": int(encryption is not None and encryption.hears_ipsec),
        "config_strict": int(encryption is not None and encryption.strict),
        "config_strict_nodes": int(encryption is not None and encryption.strict_nodes),
    }


async def remove_all(
    pin_dir: Path = DEFAULT_PIN_DIR, thread: KernelThread | None = None
) -> list[str]:
    """Take everything of ours out of this node's kernel: programs, maps, devices, routes.

    Repeatable. Returns a line for each thing removed. Pods lose their network; their pairs are left
    to the runtime, which owns their namespaces.
    """
    own = thread or KernelThread()
    try:
        return await own.call(_remove_all, pin_dir, own)
    finally:
        if thread is None:
            own.close()


def _remove_all(pin_dir: Path, thread: KernelThread) -> list[str]:
    removed = []
    # Routes first: the host must not send into a device that no program watches any more.
    table = RouteTable(thread)
    prefixes = list(table.read_now())
    table.delete_now(prefixes)
    removed += [f"route {prefix}" for prefix in prefixes]
    attacher = Attacher(pin_dir, AttachMode.TCX)
    pods = [_of_endpoint(interface) for interface in links.endpoint_interfaces()]
    node = (programs.HOST_ATTACHMENT, programs.TUNNEL_ATTACHMENT)
    for attachment in {*attacher.attached(), *node, *pods}:
        attacher.detach(attachment)
        removed.append(f"program {attachment.program} of {attachment.device}")
    pins.remove_tree(pin_dir)
    return removed + [f"device {name}" for name in devices.remove_devices()]
