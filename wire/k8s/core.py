"""Kinds of the core, apps, coordination and apiextensions groups that we only read. Pure."""

import msgspec

from wire.k8s.meta import Condition, K8sObject, K8sStruct


class Namespace(K8sObject, frozen=True):
    """A namespace: its labels go into identities."""


class ServiceAccount(K8sObject, frozen=True):
    """A service account."""


class Secret(K8sObject, frozen=True):
    """A secret; msgspec turns the base64 text into bytes."""

    type: str = ""
    data: dict[str, bytes] | None = None


class ConfigMap(K8sObject, frozen=True):
    """A config map."""

    data: dict[str, str] | None = None


class NodeAddress(K8sStruct, frozen=True):
    """An address of a Kubernetes node."""

    type: str = ""
    address: str = ""


class NodeSpec(K8sStruct, frozen=True):
    """What the controller manager gave a node."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    provider_id: str = msgspec.field(name="providerID", default="")


class NodeSystemInfo(K8sStruct, frozen=True):
    """Facts of a node's machine."""

    boot_id: str = msgspec.field(name="bootID", default="")
    kernel_version: str = ""


class NodeStatus(K8sStruct, frozen=True):
    """What a kubelet says about its node."""

    addresses: list[NodeAddress] | None = None
    conditions: list[Condition] | None = None
    node_info: NodeSystemInfo = NodeSystemInfo()


class Node(K8sObject, frozen=True):
    """A Kubernetes node; ``wire.k8s.cilium_node`` is what agents publish about one."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """Pod prefixes, one per family."""
        return tuple(self.spec.pod_cidrs or ()) or tuple(c for c in (self.spec.pod_cidr,) if c)

    @property
    def ready(self) -> bool:
        """The Ready condition."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions or ())


class DaemonSetStatus(K8sStruct, frozen=True):
    """How far a DaemonSet is rolled out."""

    desired_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    updated_number_scheduled: int = 0
    observed_generation: int = 0


class DaemonSet(K8sObject, frozen=True):
    """A DaemonSet as far as its progress goes."""

    status: DaemonSetStatus = DaemonSetStatus()


class DeploymentSpec(K8sStruct, frozen=True):
    """How many a Deployment wants."""

    replicas: int = 1


class DeploymentStatus(K8sStruct, frozen=True):
    """How far a Deployment is rolled out."""

    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    updated_replicas: int = 0
    unavailable_replicas: int = 0
    observed_generation: int = 0


class Deployment(K8sObject, frozen=True):
    """A Deployment as far as its progress goes."""

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class LeaseSpec(K8sStruct, frozen=True):
    """Who holds a lease, and until when."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(K8sObject, frozen=True):
    """A coordination lease."""

    spec: LeaseSpec = LeaseSpec()


class CrdStatus(K8sStruct, frozen=True):
    """Whether a resource definition is served."""

    conditions: list[Condition] | None = None


class CustomResourceDefinition(K8sObject, frozen=True):
    """A resource definition; its schema is only written, never read."""

    status: CrdStatus = CrdStatus()

    @property
    def established(self) -> bool:
        """True once objects of the kind can be made."""
        return any(
            c.type == "Established" and c.status == "True" for c in self.status.conditions or ()
        )
