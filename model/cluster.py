"""A member of the mesh: its name, its number, and how the number cuts the identity space. Pure.

Names have at most 32 characters, IDs are 1..255 or 1..511, as Cluster Mesh defines them.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import NewType

ClusterName = NewType("ClusterName", str)
ClusterId = NewType("ClusterId", int)

NAME_LIMIT = 32
_NAME = re.compile(r"([a-z0-9][-a-z0-9]*)?[a-z0-9]")
MAX_CONNECTED_CLUSTERS = (255, 511)
IDENTITY_BITS = 24  # what a VXLAN VNI carries


def parse_cluster_name(text: str) -> ClusterName:
    """Check a cluster name. Raises ``ValueError`` with a sentence that names it and the remedy."""
    if not text:
        raise ValueError("the cluster name is empty: set cluster-name")
    if len(text) > NAME_LIMIT:
        raise ValueError(
            f'cluster name "{text}" has {len(text)} characters: use at most {NAME_LIMIT}'
        )
    if not _NAME.fullmatch(text):
        raise ValueError(
            f'cluster name "{text}" is not valid: use lower-case letters, digits and "-", '
            "beginning and ending with a letter or digit"
        )
    return ClusterName(text)


def parse_cluster_id(value: int, max_connected: int = 255) -> ClusterId:
    """Check the ID of a mesh member. Raises ``ValueError`` naming it and the remedy."""
    if max_connected not in MAX_CONNECTED_CLUSTERS:
        raise ValueError(f"max-connected-clusters is {max_connected}: use 255 or 511")
    if value == 0:
        raise ValueError("cluster ID 0 means 'in no mesh': give each cluster its own ID from 1")
    if not 1 <= value <= max_connected:
        raise ValueError(f"cluster ID {value} is out of range: use 1 to {max_connected}")
    return ClusterId(value)


@dataclass(frozen=True, slots=True)
class IdentityRange:
    """The numeric identities that one cluster may allocate, both ends included."""

    first: int
    last: int

    def __contains__(self, identity: object) -> bool:
        return isinstance(identity, int) and self.first <= identity <= self.last


FIRST_ALLOCATABLE = 256  # below: reserved, well-known and user-reserved


def identity_shift(max_connected: int) -> int:
    """Bits of the cluster-local part of an identity: 16 for 255 clusters, 15 for 511."""
    return IDENTITY_BITS - (max_connected + 1).bit_length() + 1


def identity_range(cluster: ClusterId, max_connected: int = 255) -> IdentityRange:
    """What a peer may speak for. Allocation starts at 256 above the lower end (``local_part``)."""
    shift = identity_shift(max_connected)
    base = cluster << shift
    return IdentityRange(base if cluster else FIRST_ALLOCATABLE, base + (1 << shift) - 1)


class SliceExport(Enum):
    """Whether a cluster publishes its endpoint slices, and with or without service records."""

    NONE = ""
    BOTH = "services-and-endpointslices"
    ONLY = "endpointslices-only"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a cluster announces about its own store (`cilium/cluster-config/<name>`)."""

    synced_canaries: bool = False
    cached: bool = False  # the data lies under the cache prefix: a KVStoreMesh store
    max_connected_clusters: int = 255
    service_exports: bool | None = None  # None: too old to know
    slices: SliceExport = SliceExport.NONE


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The announcement under which everything else of a cluster is read."""

    id: ClusterId
    capabilities: Capabilities = Capabilities()
