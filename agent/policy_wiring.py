"""What an agent has for policy, put together: objects, rows, this node and others. Wiring."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from agent import policy_settings
from agent.api_server import ApiServer
from agent.config import AgentConfig
from agent.endpoint_store import Endpoint
from agent.known import KnownIdentities
from agent.mesh_state import MeshState
from agent.names import Names, both
from agent.node import Self
from agent.node_identities import NodeIdentities
from agent.policies import OwnNode, Policies
from agent.policy_inputs import PolicyInputs, Port
from agent.targets import Tables
from datapath.runtime import Datapath
from kube.client import HttpClient
from model.address import Address, Prefix, parse_address
from model.identity import NumericIdentity, ReservedIdentity
from policy.cidr_modes import CidrMode
from policy.table import PolicyTable

log = logging.getLogger("isthmus.agent.policy")

OWN_ADDRESSES_S = 10.0
_HOST = NumericIdentity(ReservedIdentity.HOST)


class PolicyNode:
    """The parts, and what they tell one another."""

    def __init__(
        self,
        config: AgentConfig,
        client: HttpClient,
        mesh: MeshState,
        me: Self,
        endpoints: Callable[[], Iterable[Endpoint]],
        ports: Callable[[str, str], tuple[Port, ...]],
        clock: Callable[[], float],
    ) -> None:
        state = config.state_dir / "state"
        self.judges_node = policy_settings.host_policy(config) is not None
        self._mesh = mesh
        self._server = client.server
        self.table = PolicyTable(policy_settings.options(config), config.bpf_policy_map_max)
        selects_nodes = config.enable_node_selector_labels
        self.api_server = ApiServer(mesh, me.node.name, claims=not selects_nodes)
        self.nodes = self._node_identities(state) if selects_nodes else None
        self.policies = Policies(
            self.table,
            mesh,
            KnownIdentities(),
            endpoints,
            ports,
            self.api_server,
            state / "prefix-identities.json",
            clock,
            OwnNode(dict(me.node.labels), self.judges_node, me.families),
            self.nodes,
        )
        self.inputs = PolicyInputs(
            client, self.policies.rules, policy_settings.readings(config), self._objects_changed
        )
        if CidrMode.PODS not in config.policy_cidr_match_mode:
            self.inputs.pod_cidrs = self._pod_cidrs
        self.host_addresses = {address.ip: _HOST for address in me.node.addresses}
        self._fixed = frozenset(self.host_addresses)
        self.api_servers: dict[Address, bool] = {}
        self._api_server_urls: frozenset[Address] = frozenset()
        self.tables: Tables | None = None
        self.names: Names | None = None
        self.policies.handed_on = self._tell_rules

    def _node_identities(self, state: Path) -> NodeIdentities:
        made = NodeIdentities(self._mesh, self.api_server, state / "node-identities.json")
        self._mesh.nodes.on_node = both(self._mesh.nodes.on_node, made.gone)
        return made

    def _pod_cidrs(self) -> set[Prefix]:
        return {prefix for node in self._mesh.nodes for prefix in node.pod_cidrs}

    def _objects_changed(self, soon: bool) -> None:
        self.policies.objects_changed(soon=soon)
        self._tell_rules()  # unless they are held: then it is told when they are handed on

    def _tell_rules(self) -> None:
        if self.names is not None:
            self.names.rules_changed(self.policies.revision)

    def api_server_moved(self, addresses: frozenset[Address]) -> None:
        """The endpoints of the Service ``default/kubernetes``."""
        self.api_server.moved(addresses)
        if self.judges_node:
            self._reach(addresses | self._api_server_urls)

    def _reach(self, addresses: frozenset[Address]) -> None:
        # None are the answer to a list that is not complete: who is reached stays so.
        if not addresses:
            return
        changed = addresses ^ self.api_servers.keys()
        self.api_servers.clear()
        self.api_servers |= dict.fromkeys(addresses, True)
        if self.tables is not None:
            for address in changed:
                self.tables.api_servers.mark(address)

    async def take_over(self, datapath: Datapath) -> None:
        """Before anything is judged: who this node is, and whom it must always reach."""
        if not self.judges_node:
            return
        self._api_server_urls = frozenset(await _resolved(self._server))
        former = await datapath.api_servers.read()
        self._reach(self._api_server_urls | former.keys())
        await self._read_addresses(datapath)

    async def keep(self, datapath: Datapath) -> None:
        """Follow the addresses of this node's devices, until cancelled."""
        while self.judges_node:
            await asyncio.sleep(OWN_ADDRESSES_S)
            await self._read_addresses(datapath)

    async def _read_addresses(self, datapath: Datapath) -> None:
        try:
            found = await datapath.own_addresses() | self._fixed
        except OSError as error:
            log.warning('event=own-addresses-not-read error="%s"', error)
            return
        changed = found ^ self.host_addresses.keys()
        self.host_addresses.clear()
        self.host_addresses |= dict.fromkeys(found, _HOST)
        if self.tables is not None:
            for address in changed:
                self.tables.host_addresses.mark(address)


async def _resolved(url: str) -> list[Address]:
    """The addresses behind a server's URL; a name is looked up, in vain perhaps."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return [parse_address(host)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning('event=api-server-not-resolved host=%s error="%s"', host, error)
        return []
    return [parse_address(str(item[4][0])) for item in found]
