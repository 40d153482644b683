"""The kinds of objects Isthmus knows. Pure."""

from typing import Any, TypeAlias

from kube.port import Resource
from wire.k8s.cilium_endpoint import CiliumEndpoint
from wire.k8s.cilium_identity import CiliumIdentity
from wire.k8s.cilium_node import CiliumNode
from wire.k8s.cluster_mesh_peer import ClusterMeshPeerObject
from wire.k8s.core import (
    ConfigMap,
    CustomResourceDefinition,
    DaemonSet,
    Deployment,
    Lease,
    Namespace,
    Node,
    Secret,
    ServiceAccount,
)
from wire.k8s.endpointslice import Endpoints, EndpointSlice
from wire.k8s.multicluster import ServiceExportObject, ServiceImportObject
from wire.k8s.pod import Pod
from wire.k8s.policy import CidrGroupObject, PolicyObject
from wire.k8s.service import Service

Unstructured: TypeAlias = dict[str, Any]

PODS = Resource("", "v1", "pods", "Pod", True, Pod)
SERVICES = Resource("", "v1", "services", "Service", True, Service)
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", True, Endpoints)
NODES = Resource("", "v1", "nodes", "Node", False, Node)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, Namespace)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ServiceAccount)
SECRETS = Resource("", "v1", "secrets", "Secret", True, Secret)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, ConfigMap)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", True, DaemonSet)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", True, Deployment)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True, Lease)
ENDPOINT_SLICES = Resource(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, EndpointSlice
)
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    False,
    CustomResourceDefinition,
)
CILIUM_NODES = Resource("cilium.io", "v2", "ciliumnodes", "CiliumNode", False, CiliumNode)
CILIUM_IDENTITIES = Resource(
    "cilium.io", "v2", "ciliumidentities", "CiliumIdentity", False, CiliumIdentity
)
CILIUM_ENDPOINTS = Resource(
    "cilium.io", "v2", "ciliumendpoints", "CiliumEndpoint", True, CiliumEndpoint
)
SERVICE_EXPORTS = Resource(
    "multicluster.x-k8s.io",
    "v1alpha1",
    "serviceexports",
    "ServiceExport",
    True,
    ServiceExportObject,
)
SERVICE_IMPORTS = Resource(
    "multicluster.x-k8s.io",
    "v1alpha1",
    "serviceimports",
    "ServiceImport",
    True,
    ServiceImportObject,
)
CLUSTER_MESH_PEERS = Resource(
    "isthmus.io",
    "v1alpha1",
    "clustermeshpeers",
    "ClusterMeshPeer",
    False,
    ClusterMeshPeerObject,
)
NETWORK_POLICIES = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, PolicyObject
)
CILIUM_POLICIES = Resource(
    "cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy", True, PolicyObject
)
CLUSTERWIDE_POLICIES = Resource(
    "cilium.io",
    "v2",
    "ciliumclusterwidenetworkpolicies",
    "CiliumClusterwideNetworkPolicy",
    False,
    PolicyObject,
)
CIDR_GROUPS = Resource(
    "cilium.io", "v2alpha1", "ciliumcidrgroups", "CiliumCIDRGroup", False, CidrGroupObject
)

ALL: tuple[Resource[Any], ...] = (
    PODS,
    SERVICES,
    ENDPOINTS,
    NODES,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SECRETS,
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    LEASES,
    ENDPOINT_SLICES,
    CRDS,
    CILIUM_NODES,
    CILIUM_IDENTITIES,
    CILIUM_ENDPOINTS,
    SERVICE_EXPORTS,
    SERVICE_IMPORTS,
    CLUSTER_MESH_PEERS,
    NETWORK_POLICIES,
    CILIUM_POLICIES,
    CLUSTERWIDE_POLICIES,
    CIDR_GROUPS,
)


def unstructured(
    group: str, version: str, plural: str, kind: str, namespaced: bool
) -> Resource[Unstructured]:
    """Any kind, as plain dictionaries: for those who pass manifests on as they are."""
    return Resource(group, version, plural, kind, namespaced, dict)


def untyped(resource: Resource[Any]) -> Resource[Unstructured]:
    """The same kind with every field, for reading an object to be written back whole."""
    return unstructured(
        resource.group,
        resource.version,
        resource.plural,
        resource.kind,
        resource.namespaced,
    )
