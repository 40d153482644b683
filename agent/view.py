"""Everything the APIs may read, in one value. Pure wiring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.config import AgentConfig
from agent.endpoints import Endpoints
from agent.identities import IdentityAllocator
from agent.ipam import Pools
from agent.kube_inputs import KubeInputs
from agent.mesh_encryption import MeshEncryption
from agent.mesh_state import MeshState
from agent.names import Names
from agent.node import Self
from agent.policies import Policies
from agent.policy_inputs import PolicyInputs
from agent.probing import Prober
from agent.publish import EndpointObjects
from agent.targets import Tables
from datapath.runtime import Datapath
from kvstore.remotes import Remotes
from model.address import Address
from model.identity import NumericIdentity
from reconcile.loop import Loop


@dataclass(slots=True)
class Progress:
    """How far the start has come; readiness is the last step."""

    steps: list[str] = field(default_factory=list)
    started_s: float = 0.0
    ready_s: float | None = None  # seconds from start
    cni_file: str = ""
    cni_error: str = ""

    @property
    def ready(self) -> bool:
        """Pods can be attached and all tables are written."""
        return self.ready_s is not None


@dataclass(frozen=True, slots=True)
class View:
    """References into the running agent."""

    config: AgentConfig
    me: Self
    mesh: MeshState
    pools: Pools
    endpoints: Endpoints
    allocator: IdentityAllocator
    kube: KubeInputs
    remotes: Remotes
    datapath: Datapath
    tables: Tables
    loops: tuple[Loop, ...]
    objects: EndpointObjects
    policies: Policies
    host_addresses: Mapping[Address, NumericIdentity]
    policy_inputs: PolicyInputs
    names: Names
    prober: Prober
    encryption: MeshEncryption
    progress: Progress
    server: str  # of the API server
    clock: Callable[[], float]
