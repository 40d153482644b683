"""Who this node is: its Kubernetes object, its pod CIDR, its router address. Adapter."""

# ruff: noqa: ASYNC240  (one small local file, before anything is served)

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.config import AgentConfig, ConfigError, cluster_id
from agent.ipam import Pool
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


@dataclass(frozen=True, slots=True)
class Self:
    """What an agent must know of its node before anything else."""

    node: Node  # as we publish it
    uid: str  # of the Kubernetes object
    ip: Address
    pod_cidr: Prefix
    router: Address


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


async def wait_for_node(client: Client, name: str) -> core.Node:
    """The Kubernetes node once it has an address and a pod CIDR."""
    said = ""
    while True:
        try:
            node = await client.get(NODES, name)
            if addresses_of(node) and node.pod_cidrs:
                return node
            missing = "InternalIP" if not addresses_of(node) else "pod CIDR"
            problem = f"Node {name} has no {missing} yet"
        except ApiError as error:
            problem = str(error)
        except OSError as error:
            problem = str(error)
        if problem != said:
            log.warning('event=waiting-for-node problem="%s"', problem)
            said = problem
        await asyncio.sleep(_RETRY_S)


async def saved_router(client: Client, config: AgentConfig, file: Path) -> Address | None:
    """The router address of a former life: from disk, else from our CiliumNode."""
    try:
        return parse_address(file.read_text().strip())
    except (OSError, ValueError):
        pass
    try:
        found = await client.get(CILIUM_NODES, config.k8s_node_name)
        node = decode_node(found, config.cluster_name, cluster_id(config))
        return node.address(CILIUM_INTERNAL_IP)
    except (ObjectError, OSError, ValueError):
        return None


def choose_router(pool: Pool, saved: Address | None, draw: Callable[[], float]) -> Address:
    """Keep the router address while it lies in the pod CIDR, else take a free one."""
    if saved is not None and pool.take(saved, ROUTER_OWNER):
        return saved
    if saved is not None:
        log.warning("event=router-address-changed old=%s pod_cidr=%s", saved, pool.prefix)
    return pool.allocate(ROUTER_OWNER, draw)


def describe(node: core.Node, config: AgentConfig, router: Address) -> Node:
    """This node as other nodes and clusters need it."""
    return Node(
        cluster=config.cluster_name,
        name=NodeName(node.metadata.name),
        cluster_id=cluster_id(config),
        addresses=(*addresses_of(node), NodeAddress(CILIUM_INTERNAL_IP, router)),
        pod_cidrs=tuple(p for p in pod_prefixes(node) if p.version == 4),
        boot_id=_BOOT_ID.read_text().strip(),
        labels=dict(labels_of(node.metadata)),
    )
