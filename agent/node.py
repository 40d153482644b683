"""Who this node is: its Kubernetes object, its pod CIDR, its router address. Adapter."""

# ruff: noqa: ASYNC240  (one small local file, before anything is served)

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config import AgentConfig, ConfigError, cluster_id
from agent.endpoint_store import write_atomically
from agent.ipam import Pool, Pools
from kube.port import ApiError, Client
from kube.resources import CILIUM_NODES, NODES
from model.address import Address, Prefix, parse_address, parse_prefix
from model.node import (
    CILIUM_INTERNAL_IP,
    EXTERNAL_IP,
    INTERNAL_IP,
    Node,
    NodeAddress,
    NodeName,
)
from wire.k8s import core
from wire.k8s.cilium_node import decode_node
from wire.k8s.errors import ObjectError
from wire.k8s.meta import labels_of

log = logging.getLogger("isthmus.agent.node")

_RETRY_S = 0.5
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ROUTER_OWNER = "router"
ROUTER_FILES = {4: "router-address", 6: "router-address-6"}


@dataclass(frozen=True, slots=True)
class Self:
    """What an agent must know of its node before anything else."""

    node: Node  # as we publish it
    uid: str  # of the Kubernetes object
    ip: Address
    pod_cidr: Prefix  # of IPv4, as is ``router``
    router: Address
    router6: Address | None = None  # None: this node is of IPv4 alone

    @property
    def routers(self) -> tuple[Address, ...]:
        """The router's address of each family."""
        return (self.router,) if self.router6 is None else (self.router, self.router6)

    @property
    def families(self) -> frozenset[int]:
        """4, and perhaps 6."""
        return frozenset(router.version for router in self.routers)


def addresses_of(node: core.Node) -> tuple[NodeAddress, ...]:
    """Usable addresses of a Kubernetes node."""
    found = []
    for item in node.status.addresses or ():
        if item.type in (INTERNAL_IP, EXTERNAL_IP):
            try:
                found.append(NodeAddress(item.type, parse_address(item.address)))
            except ValueError:
                log.warning("event=address-ignored address=%s type=%s", item.address, item.type)
    return tuple(found)


def pod_prefixes(node: core.Node) -> tuple[Prefix, ...]:
    """Pod CIDRs of a Kubernetes node. Raises ``ConfigError``."""
    try:
        return tuple(parse_prefix(text) for text in node.pod_cidrs)
    except ValueError as error:
        raise ConfigError(
            f"Node {node.metadata.name}: pod CIDR is not valid: {error}: correct spec.podCIDRs"
        ) from error


async def wait_for_node(client: Client, name: str, dual: bool = False) -> core.Node:
    """The Kubernetes node once it has an address and a pod CIDR; ``dual``: one of each family."""
    said = ""
    while True:
        try:
            node = await client.get(NODES, name)
            families = {prefix.version for prefix in pod_prefixes(node)}
            if addresses_of(node) and families and not (dual and 6 not in families):
                return node
            if not addresses_of(node):
                missing = "InternalIP"
            else:
                missing = "IPv6 pod CIDR" if families else "pod CIDR"
            problem = f"Node {name} has no {missing} yet"
        except ApiError as error:
            problem = str(error)
        except OSError as error:
            problem = str(error)
        if problem != said:
            log.warning('event=waiting-for-node problem="%s"', problem)
            said = problem
        await asyncio.sleep(_RETRY_S)


async def learn_self(client: Client, config: AgentConfig) -> tuple[Self, Pools]:
    """Wait for our node, and take the router's addresses. Raises ``OSError``."""
    found = await wait_for_node(client, config.k8s_node_name, config.enable_ipv6)
    pools, routers = [], []
    for version in (4, 6) if config.enable_ipv6 else (4,):
        cidr = next((p for p in pod_prefixes(found) if p.version == version), None)
        if cidr is None:
            raise OSError(
                f"Node {config.k8s_node_name} has no IPv{version} pod CIDR: give it one"
                + (", or set enable-ipv6 to false" if version == 6 else "")
            )
        pool = Pool(cidr)
        file = config.state_dir / "state" / ROUTER_FILES[version]
        saved = await saved_router(client, config, file, version)
        router = choose_router(pool, saved, random.random)
        write_atomically(file, f"{router}\n".encode())
        pools.append(pool)
        routers.append(router)
    node = describe(found, config, routers)
    ip = node.tunnel_endpoint(4)
    if ip is None:
        raise OSError(f"Node {config.k8s_node_name} has no IPv4 InternalIP: the tunnel needs one")
    six = routers[1] if config.enable_ipv6 else None
    return Self(node, found.metadata.uid, ip, pools[0].prefix, routers[0], six), Pools(pools)


async def saved_router(
    client: Client, config: AgentConfig, file: Path, version: int
) -> Address | None:
    """The router address of a former life: from disk, else from our CiliumNode."""
    try:
        return parse_address(file.read_text().strip())
    except (OSError, ValueError):
        pass
    try:
        found = await client.get(CILIUM_NODES, config.k8s_node_name)
        node = decode_node(found, config.cluster_name, cluster_id(config))
        return node.address(CILIUM_INTERNAL_IP, version)
    except (ObjectError, OSError, ValueError):
        return None


def choose_router(pool: Pool, saved: Address | None, draw: Callable[[], float]) -> Address:
    """Keep the router address while it lies in the pod CIDR, else take a free one."""
    if saved is not None and pool.take(saved, ROUTER_OWNER):
        return saved
    if saved is not None:
        log.warning("event=router-address-changed old=%s pod_cidr=%s", saved, pool.prefix)
    return pool.allocate(ROUTER_OWNER, draw)


def describe(node: core.Node, config: AgentConfig, routers: Sequence[Address]) -> Node:
    """This node as other nodes and clusters need it: of the families it has a router for."""
    versions = {router.version for router in routers}
    return Node(
        cluster=config.cluster_name,
        name=NodeName(node.metadata.name),
        cluster_id=cluster_id(config),
        addresses=(
            *addresses_of(node),
            *(NodeAddress(CILIUM_INTERNAL_IP, router) for router in routers),
        ),
        pod_cidrs=tuple(p for p in pod_prefixes(node) if p.version in versions),
        boot_id=_BOOT_ID.read_text().strip(),
        labels=dict(labels_of(node.metadata)),
    )
