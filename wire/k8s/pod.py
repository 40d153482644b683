"""Pods, and the labels a pod's security identity is made of. Pure."""

import re
from collections.abc import Iterable, Mapping

import msgspec

from model import labels
from model.address import Address, parse_address
from wire.k8s.meta import Condition, K8sObject, K8sStruct


class ContainerPort(K8sStruct, frozen=True):
    """A port a container declares; services may refer to it by name."""

    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class Container(K8sStruct, frozen=True):
    """A container as far as its ports go."""

    name: str = ""
    image: str = ""
    ports: list[ContainerPort] | None = None


class PodSpec(K8sStruct, frozen=True):
    """What a pod asks for."""

    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""
    containers: list[Container] | None = None


class PodIP(K8sStruct, frozen=True):
    """One address of a pod, one per family."""

    ip: str = ""


class ContainerStatus(K8sStruct, frozen=True):
    """A running container."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    container_id: str = msgspec.field(name="containerID", default="")


class PodStatus(K8sStruct, frozen=True):
    """What the kubelet says about a pod."""

    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] | None = msgspec.field(name="podIPs", default=None)
    host_ip: str = msgspec.field(name="hostIP", default="")
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Pod(K8sObject, frozen=True):
    """A pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def running(self) -> bool:
        """False once the pod has ended for good: its address may belong to another by then."""
        return self.status.phase not in ("Succeeded", "Failed")

    @property
    def ready(self) -> bool:
        """The Ready condition."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions or ())


def addresses_of(pod: Pod) -> tuple[Address, ...]:
    """Addresses in the kubelet's order; texts that are no address are left out."""
    texts = [i.ip for i in pod.status.pod_ips or ()] or [pod.status.pod_ip]
    found = []
    for text in texts:
        try:
            found.append(parse_address(text))
        except ValueError:
            continue
    return tuple(found)


# Which keys make an identity, by what they begin with. The longest match decides, and a key that
# nothing matches is included: labels a user writes count, those that machinery adds per replica
# or per node do not (they would give every pod an identity of its own).
_RULES: tuple[tuple[bool, "re.Pattern[str]"], ...] = tuple(
    (include, re.compile(pattern))
    for include, pattern in (
        (True, r"io\.kubernetes\.pod\.namespace"),
        (True, r"io\.cilium\.k8s\.namespace\.labels"),
        (True, r"app\.kubernetes\.io"),
        (True, r"io\.cilium\.k8s\.policy\.cluster"),
        (False, r"io\.kubernetes"),
        (False, r"kubernetes\.io"),
        (False, r"statefulset\.kubernetes\.io/pod-name"),
        (False, r"apps\.kubernetes\.io/pod-index"),
        (False, r"batch\.kubernetes\.io/job-completion-index"),
        (False, r"batch\.kubernetes\.io/controller-uid"),
        (False, r".*beta\.kubernetes\.io"),
        (False, r"k8s\.io"),
        (False, r"pod-template-generation"),
        (False, r"pod-template-hash"),
        (False, r"controller-revision-hash"),
        (False, r"controller-uid"),
        (False, r"annotation"),
        (False, r"etcd_node"),
    )
)


def counts_for_identity(key: str) -> bool:
    """Whether a label of source ``k8s`` belongs to the identity, under the default filter."""
    longest, include = 0, True
    for wanted, pattern in _RULES:
        match = pattern.match(key)
        if match is not None and match.end() > longest:
            longest, include = match.end(), wanted
    return include


def identity_labels(
    pod_labels: Mapping[str, str],
    namespace: str,
    namespace_labels: Mapping[str, str],
    service_account: str,
    cluster: str,
) -> labels.Labels:
    """The label set that a pod's identity stands for.

    What we derive replaces what the pod claims under the same key, so that no pod can put itself
    into another namespace, cluster or service account.
    """
    own = {k: v for k, v in pod_labels.items() if not k.startswith(_OURS)}
    derived = {labels.NAMESPACE_META_PREFIX + key: value for key, value in namespace_labels.items()}
    derived[labels.NAMESPACE_LABEL] = namespace
    derived[labels.CLUSTER_LABEL] = cluster
    if service_account:
        derived[labels.SERVICE_ACCOUNT_LABEL] = service_account
    return labels.Labels.k8s(_included([*own.items(), *derived.items()]))


# Nothing that begins so is the pod's to say, whether it is derived today or not.
_OURS = ("io.cilium.k8s", labels.NAMESPACE_LABEL)


def _included(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {key: value for key, value in pairs if counts_for_identity(key)}


def identity_labels_of(
    pod: Pod, namespace_labels: Mapping[str, str], cluster: str
) -> labels.Labels:
    """``identity_labels`` of a pod object."""
    return identity_labels(
        pod.metadata.labels or {},
        pod.metadata.namespace,
        namespace_labels,
        pod.spec.service_account_name,
        cluster,
    )
