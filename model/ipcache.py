"""Which identity an address has and behind which node it is. Pure."""

from enum import IntEnum

import msgspec

from model.address import Address
from model.identity import NumericIdentity


class Source(IntEnum):
    """Who says so; a smaller number wins and a weaker source never replaces a stronger one."""

    KUBE_APISERVER = 0
    LOCAL = 1
    KVSTORE = 2
    CUSTOM_RESOURCE = 3
    KUBERNETES = 4
    CLUSTERMESH = 5
    GENERATED = 6
    RESTORED = 7


class IpcacheEntry(msgspec.Struct, frozen=True, gc=False):
    """What the datapath knows about one prefix."""

    identity: NumericIdentity
    tunnel_endpoint: Address | None = None  # None: on this node, or reached without a tunnel
    encrypt_key: int = 0  # 0: do not encrypt
    cluster_id: int = 0


class EndpointAddress(msgspec.Struct, frozen=True, gc=False):
    """One pod address as a cluster publishes it (`cilium/state/ip/v1/default/...`)."""

    host_ip: Address | None
    identity: NumericIdentity
    key: int = 0
    namespace: str = ""
    pod: str = ""
    service_account: str = ""
