"""What was looked at in a cluster, to find what is wrong. Pure: values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.mesh_facts import ClusterFacts
from model.address import Address, Prefix

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """One agent, as it answers where it runs."""

    pod: str
    node: str = ""
    error: str = ""  # why it does not answer
    status: Mapping[str, Any] = field(default_factory=dict)
    device_mtu: int = 0  # 0: not known
    skew_s: float | None = None  # its clock less ours
    endpoints: tuple[Mapping[str, Any], ...] = ()  # ways it tried: cluster, endpoint, error
    asked: bool = False  # it could try ways

    @property
    def version(self) -> str:
        """``1.2.3``; empty when it does not say."""
        found = _VERSION.search(str((self.status.get("cilium") or {}).get("msg") or ""))
        return found.group() if found else ""


@dataclass(frozen=True, slots=True)
class Examined:
    """One cluster with all that was looked at."""

    facts: ClusterFacts
    settings: Mapping[str, str] = field(default_factory=dict)
    node_addresses: Mapping[str, Address] = field(default_factory=dict)
    # Clusters whose stores are shown the certificate of the mesh, not one of their own authority.
    common: frozenset[str] = frozenset()
    service_cidrs: tuple[Prefix, ...] = ()
    service_addresses: Mapping[str, Address] = field(default_factory=dict)  # namespace/name
    skew_s: float | None = None  # the API server's clock less ours
    agents: tuple[AgentSeen, ...] = ()
    agents_wanted: int = 0
    copies: tuple[Mapping[str, Any], ...] = ()  # what KVStoreMesh says of each cluster

    @property
    def name(self) -> str:
        return self.facts.name
