"""Rows of the kernel maps and the numbers shared with the programs. Pure.

Generated from `bpf/lib/abi/*.h` by tools/gen_layouts.py (`make layouts`): do not edit.
"""

import struct
import sys
from enum import IntEnum
from typing import NamedTuple


def _be16(value: int) -> int:
    return value if sys.byteorder == "big" else (value & 0xFF) << 8 | value >> 8


class PolicyBits(IntEnum):
    """``enum policy_bits``."""

    POLICY_STATIC_BITS = 40
    POLICY_PROTOCOL_BITS = 8
    POLICY_FULL_BITS = 24


class PolicyFlags(IntEnum):
    """``enum policy_flags``."""

    POLICY_DENY = 1
    POLICY_AUDIT = 2


class PolicyCidrModes(IntEnum):
    """``enum policy_cidr_modes``."""

    CIDR_NODES = 1
    CIDR_PODS = 2


class PolicyLimits(IntEnum):
    """``enum policy_limits``."""

    POLICY_ROWS_MAX = 16384
    POLICY_ENDPOINTS_MAX = 65536


class EventType(IntEnum):
    """``enum event_type``."""

    EVENT_DROP = 1
    EVENT_TRACE = 4
    EVENT_POLICY_VERDICT = 5
    EVENT_TRANSLATION = 7
    EVENT_TYPE_COUNT = 8


class EventLimits(IntEnum):
    """``enum event_limits``."""

    EVENT_VERSION = 1
    EVENT_CAPTURE_MAX = 128


class TraceLevel(IntEnum):
    """``enum trace_level``."""

    TRACE_OFF = 0
    TRACE_ALL = 1
    TRACE_OUTCOME = 2
    TRACE_CHANGES = 3


class TracePoint(IntEnum):
    """``enum trace_point``."""

    TRACE_TO_ENDPOINT = 0
    TRACE_TO_HOST = 2
    TRACE_TO_STACK = 3
    TRACE_TO_OVERLAY = 4
    TRACE_FROM_ENDPOINT = 5
    TRACE_FROM_HOST = 7
    TRACE_FROM_OVERLAY = 9
    TRACE_FROM_NETWORK = 10
    TRACE_TO_NETWORK = 11


class TraceReason(IntEnum):
    """``enum trace_reason``."""

    REASON_NEW = 0
    REASON_ESTABLISHED = 1
    REASON_REPLY = 2
    REASON_RELATED = 3
    REASON_UNKNOWN = 5
    REASON_ENCRYPTED = 128


class TraceBits(IntEnum):
    """``enum trace_bits``."""

    TRACE_IP6 = 1


class TranslationPoint(IntEnum):
    """``enum translation_point``."""

    TRANSLATION_BEFORE = 1
    TRANSLATION_AFTER = 2
    TRANSLATION_ANSWER_BEFORE = 3
    TRANSLATION_ANSWER_AFTER = 4


class PolicyMatch(IntEnum):
    """``enum policy_match``."""

    MATCH_NONE = 0
    MATCH_L3_ONLY = 1
    MATCH_L3_L4 = 2
    MATCH_L4_ONLY = 3
    MATCH_ALL = 4
    MATCH_L3_PROTOCOL = 5
    MATCH_PROTOCOL_ONLY = 6


class VerdictBits(IntEnum):
    """``enum verdict_bits``."""

    VERDICT_DIRECTION_MASK = 3
    VERDICT_IP6 = 4
    VERDICT_MATCH_SHIFT = 3
    VERDICT_AUDITED = 64


class ConntrackScope(IntEnum):
    """``enum conntrack_scope``."""

    CONNTRACK_EGRESS = 0
    CONNTRACK_INGRESS = 1
    CONNTRACK_SERVICE = 2


class ConntrackFlags(IntEnum):
    """``enum conntrack_flags``."""

    CONNTRACK_RX_CLOSING = 1
    CONNTRACK_TX_CLOSING = 2
    CONNTRACK_SEEN_NON_SYN = 4
    CONNTRACK_LOOPBACK = 8
    CONNTRACK_FROM_TUNNEL = 16
    CONNTRACK_CLUSTER_REPLY = 32
    CONNTRACK_CUT = 64
    CONNTRACK_ANSWERED = 128


class EndpointFlags(IntEnum):
    """``enum endpoint_flags``."""

    ENDPOINT_HOST = 1


class IpcacheFlags(IntEnum):
    """``enum ipcache_flags``."""

    IPCACHE_SKIP_TUNNEL = 1


class MarkBits(IntEnum):
    """``enum mark_bits``."""

    MARK_MAGIC_MASK = 3840
    MARK_MAGIC_TO_PROXY = 512
    MARK_MAGIC_OVERLAY = 1024
    MARK_MAGIC_HOST = 3072
    MARK_MAGIC_DECRYPT = 3328
    MARK_MAGIC_ENCRYPT = 3584
    MARK_MAGIC_IDENTITY = 3840
    MARK_WIREGUARD = 7680


class SourceFile(IntEnum):
    """``enum source_file``."""

    SOURCE_NONE = 0
    SOURCE_FROM_CONTAINER = 1
    SOURCE_FROM_OVERLAY = 2
    SOURCE_FROM_HOST = 3
    SOURCE_PARSE = 4
    SOURCE_CONNTRACK = 5
    SOURCE_SERVICE = 6
    SOURCE_NAT = 7
    SOURCE_ICMP = 8
    SOURCE_FORWARD = 9
    SOURCE_DELIVER = 10
    SOURCE_NEIGHBOUR = 11
    SOURCE_ACT = 12
    SOURCE_POLICY = 13
    SOURCE_ENCRYPT = 14
    SOURCE_FROM_NETWORK = 15
    SOURCE_ROUTE = 16
    SOURCE_FROM_WIREGUARD = 17


class DropReason(IntEnum):
    """``enum drop_reason``."""

    REASON_FORWARDED = 0
    DROP_INVALID_SOURCE_IP = 132
    DROP_POLICY_DENIED = 133
    DROP_MALFORMED = 134
    DROP_CT_TRUNCATED = 135
    DROP_FRAGMENTATION_NEEDED = 136
    DROP_CT_UNKNOWN_L4 = 137
    DROP_UNSUPPORTED_L3 = 139
    DROP_MISSED_TAIL_CALL = 140
    DROP_WRITE_FAILED = 141
    DROP_UNKNOWN_L4 = 142
    DROP_NO_TUNNEL_KEY = 147
    DROP_UNKNOWN_RECEIVER = 150
    DROP_UNROUTABLE_IP = 151
    DROP_L3_CHECKSUM = 153
    DROP_L4_CHECKSUM = 154
    DROP_CT_INSERT_FAILED = 155
    DROP_INVALID_EXTENSION_HEADER = 156
    DROP_FRAGMENT_UNSUPPORTED = 157
    DROP_NO_BACKEND = 158
    DROP_UNSUPPORTED_SERVICE_PROTOCOL = 159
    DROP_NO_TUNNEL_ENDPOINT = 160
    DROP_HOST_UNREACHABLE = 164
    DROP_UNSUPPORTED_L2 = 166
    DROP_FIB_LOOKUP_FAILED = 169
    DROP_TUNNEL_FROM_POD = 170
    DROP_INVALID_IDENTITY = 171
    DROP_UNKNOWN_SENDER = 172
    DROP_FIRST_FRAGMENT_UNKNOWN = 175
    DROP_POLICY_DENY_RULE = 181
    DROP_UNENCRYPTED = 195
    DROP_TTL_EXCEEDED = 196
    DROP_NO_NODE_ID = 197
    DROP_NO_POLICY_PROGRAM = 203


class TrafficDirection(IntEnum):
    """``enum traffic_direction``."""

    DIRECTION_INGRESS = 1
    DIRECTION_EGRESS = 2
    DIRECTION_SERVICE = 3
    DIRECTION_COUNT = 4


class ServiceFlags(IntEnum):
    """``enum service_flags``."""

    SERVICE_AFFINITY = 1
    SERVICE_MAGLEV = 2


class BackendState(IntEnum):
    """``enum backend_state``."""

    BACKEND_ACTIVE = 0
    BACKEND_TERMINATING = 1
    BACKEND_QUARANTINED = 2
    BACKEND_MAINTENANCE = 3


class ServiceLimits(IntEnum):
    """``enum service_limits``."""

    MAGLEV_TABLE_SIZE = 16381


CONNTRACK_KEY = struct.Struct("=16s16sHHBB2x")


class ConntrackKey(NamedTuple):
    """``struct conntrack_key``."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int
    scope: int

    def pack(self) -> bytes:
        """The bytes."""
        return CONNTRACK_KEY.pack(
            self.source,
            self.destination,
            _be16(self.source_port),
            _be16(self.destination_port),
            self.protocol,
            self.scope,
        )

    @classmethod
    def parse(cls, data: bytes) -> "ConntrackKey":
        """From the bytes."""
        source, destination, source_port, destination_port, protocol, scope = CONNTRACK_KEY.unpack(data)
        return cls(
            source,
            destination,
            _be16(source_port),
            _be16(destination_port),
            protocol,
            scope,
        )


CONNTRACK_VALUE = struct.Struct("=QQIIIHHBBHH2x")


class ConntrackValue(NamedTuple):
    """``struct conntrack_value``."""

    packets: int
    size: int
    expires_s: int
    source_identity: int
    backend_id: int
    revnat_id: int
    flags: int
    tx_tcp_flags: int
    rx_tcp_flags: int
    tx_told_s: int
    rx_told_s: int

    def pack(self) -> bytes:
        """The bytes."""
        return CONNTRACK_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "ConntrackValue":
        """From the bytes."""
        return cls(*CONNTRACK_VALUE.unpack(data))


ENDPOINT_KEY = struct.Struct("=16s")


class EndpointKey(NamedTuple):
    """``struct endpoint_key``."""

    address: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return ENDPOINT_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "EndpointKey":
        """From the bytes."""
        return cls(*ENDPOINT_KEY.unpack(data))


ENDPOINT_VALUE = struct.Struct("=IIHH6s6s")


class EndpointValue(NamedTuple):
    """``struct endpoint_value``."""

    ifindex: int
    identity: int
    id: int
    flags: int
    mac: bytes
    node_mac: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return ENDPOINT_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "EndpointValue":
        """From the bytes."""
        return cls(*ENDPOINT_VALUE.unpack(data))


INTERFACE_VALUE = struct.Struct("=16s16sIH6s6s6x")


class InterfaceValue(NamedTuple):
    """``struct interface_value``."""

    address4: bytes
    address6: bytes
    identity: int
    endpoint_id: int
    mac: bytes
    node_mac: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return INTERFACE_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "InterfaceValue":
        """From the bytes."""
        return cls(*INTERFACE_VALUE.unpack(data))


FRAGMENT_VALUE = struct.Struct("=HHB3x")


class FragmentValue(NamedTuple):
    """``struct fragment_value``."""

    source_port: int
    destination_port: int
    icmp_type: int

    def pack(self) -> bytes:
        """The bytes."""
        return FRAGMENT_VALUE.pack(
            _be16(self.source_port),
            _be16(self.destination_port),
            self.icmp_type,
        )

    @classmethod
    def parse(cls, data: bytes) -> "FragmentValue":
        """From the bytes."""
        source_port, destination_port, icmp_type = FRAGMENT_VALUE.unpack(data)
        return cls(
            _be16(source_port),
            _be16(destination_port),
            icmp_type,
        )


IPCACHE_KEY = struct.Struct("=16s")


class IpcacheKey(NamedTuple):
    """``struct ipcache_key``."""

    address: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return IPCACHE_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "IpcacheKey":
        """From the bytes."""
        return cls(*IPCACHE_KEY.unpack(data))


IPCACHE_PREFIX_KEY = struct.Struct("=I16s")


class IpcachePrefixKey(NamedTuple):
    """``struct ipcache_prefix_key``."""

    prefix_length: int
    address: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return IPCACHE_PREFIX_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "IpcachePrefixKey":
        """From the bytes."""
        return cls(*IPCACHE_PREFIX_KEY.unpack(data))


IPCACHE_VALUE = struct.Struct("=16sIHBB")


class IpcacheValue(NamedTuple):
    """``struct ipcache_value``."""

    tunnel_endpoint: bytes
    identity: int
    cluster_id: int
    encrypt_key: int
    flags: int

    def pack(self) -> bytes:
        """The bytes."""
        return IPCACHE_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "IpcacheValue":
        """From the bytes."""
        return cls(*IPCACHE_VALUE.unpack(data))


NODE_KEY = struct.Struct("=16s")


class NodeKey(NamedTuple):
    """``struct node_key``."""

    address: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return NODE_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "NodeKey":
        """From the bytes."""
        return cls(*NODE_KEY.unpack(data))


NODE_VALUE = struct.Struct("=HB1x")


class NodeValue(NamedTuple):
    """``struct node_value``."""

    id: int
    key: int

    def pack(self) -> bytes:
        """The bytes."""
        return NODE_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "NodeValue":
        """From the bytes."""
        return cls(*NODE_VALUE.unpack(data))


METRICS_KEY = struct.Struct("=BBHB3x")


class MetricsKey(NamedTuple):
    """``struct metrics_key``."""

    reason: int
    direction: int
    line: int
    file: int

    def pack(self) -> bytes:
        """The bytes."""
        return METRICS_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "MetricsKey":
        """From the bytes."""
        return cls(*METRICS_KEY.unpack(data))


METRICS_VALUE = struct.Struct("=QQ")


class MetricsValue(NamedTuple):
    """``struct metrics_value``."""

    packets: int
    size: int

    def pack(self) -> bytes:
        """The bytes."""
        return METRICS_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "MetricsValue":
        """From the bytes."""
        return cls(*METRICS_VALUE.unpack(data))


SERVICE_KEY = struct.Struct("=16sHHBB2x")


class ServiceKey(NamedTuple):
    """``struct service_key``."""

    address: bytes
    port: int
    slot: int
    protocol: int
    scope: int

    def pack(self) -> bytes:
        """The bytes."""
        return SERVICE_KEY.pack(
            self.address,
            _be16(self.port),
            self.slot,
            self.protocol,
            self.scope,
        )

    @classmethod
    def parse(cls, data: bytes) -> "ServiceKey":
        """From the bytes."""
        address, port, slot, protocol, scope = SERVICE_KEY.unpack(data)
        return cls(
            address,
            _be16(port),
            slot,
            protocol,
            scope,
        )


SERVICE_VALUE = struct.Struct("=IIHHH2x")


class ServiceValue(NamedTuple):
    """``struct service_value``."""

    backend_id: int
    affinity_timeout_s: int
    slots: int
    revnat_id: int
    flags: int

    def pack(self) -> bytes:
        """The bytes."""
        return SERVICE_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "ServiceValue":
        """From the bytes."""
        return cls(*SERVICE_VALUE.unpack(data))


SERVICE_SLOT = struct.Struct("=IIHHH2x")


class ServiceSlot(NamedTuple):
    """``struct service_slot``."""

    backend_id: int
    other_id: int
    other_share: int
    revnat_id: int
    flags: int

    def pack(self) -> bytes:
        """The bytes."""
        return SERVICE_SLOT.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "ServiceSlot":
        """From the bytes."""
        return cls(*SERVICE_SLOT.unpack(data))


BACKEND_VALUE = struct.Struct("=16sHBBH2x")


class BackendValue(NamedTuple):
    """``struct backend_value``."""

    address: bytes
    port: int
    protocol: int
    state: int
    cluster_id: int

    def pack(self) -> bytes:
        """The bytes."""
        return BACKEND_VALUE.pack(
            self.address,
            _be16(self.port),
            self.protocol,
            self.state,
            self.cluster_id,
        )

    @classmethod
    def parse(cls, data: bytes) -> "BackendValue":
        """From the bytes."""
        address, port, protocol, state, cluster_id = BACKEND_VALUE.unpack(data)
        return cls(
            address,
            _be16(port),
            protocol,
            state,
            cluster_id,
        )


REVNAT_VALUE = struct.Struct("=16sH2x")


class RevnatValue(NamedTuple):
    """``struct revnat_value``."""

    address: bytes
    port: int

    def pack(self) -> bytes:
        """The bytes."""
        return REVNAT_VALUE.pack(
            self.address,
            _be16(self.port),
        )

    @classmethod
    def parse(cls, data: bytes) -> "RevnatValue":
        """From the bytes."""
        address, port = REVNAT_VALUE.unpack(data)
        return cls(
            address,
            _be16(port),
        )


AFFINITY_KEY = struct.Struct("=16sI")


class AffinityKey(NamedTuple):
    """``struct affinity_key``."""

    client: bytes
    revnat_id: int

    def pack(self) -> bytes:
        """The bytes."""
        return AFFINITY_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "AffinityKey":
        """From the bytes."""
        return cls(*AFFINITY_KEY.unpack(data))


AFFINITY_VALUE = struct.Struct("=QI4x")


class AffinityValue(NamedTuple):
    """``struct affinity_value``."""

    last_used_ns: int
    backend_id: int

    def pack(self) -> bytes:
        """The bytes."""
        return AFFINITY_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "AffinityValue":
        """From the bytes."""
        return cls(*AFFINITY_VALUE.unpack(data))


AFFINITY_MATCH_KEY = struct.Struct("=II")


class AffinityMatchKey(NamedTuple):
    """``struct affinity_match_key``."""

    backend_id: int
    revnat_id: int

    def pack(self) -> bytes:
        """The bytes."""
        return AFFINITY_MATCH_KEY.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "AffinityMatchKey":
        """From the bytes."""
        return cls(*AFFINITY_MATCH_KEY.unpack(data))


POLICY_KEY = struct.Struct("=IIBBH")


class PolicyKey(NamedTuple):
    """``struct policy_key``."""

    prefix_length: int
    identity: int
    egress: int
    protocol: int
    port: int

    def pack(self) -> bytes:
        """The bytes."""
        return POLICY_KEY.pack(
            self.prefix_length,
            self.identity,
            self.egress,
            self.protocol,
            _be16(self.port),
        )

    @classmethod
    def parse(cls, data: bytes) -> "PolicyKey":
        """From the bytes."""
        prefix_length, identity, egress, protocol, port = POLICY_KEY.unpack(data)
        return cls(
            prefix_length,
            identity,
            egress,
            protocol,
            _be16(port),
        )


POLICY_VALUE = struct.Struct("=IBB2xQQ")


class PolicyValue(NamedTuple):
    """``struct policy_value``."""

    rule: int
    flags: int
    bits: int
    packets: int
    size: int

    def pack(self) -> bytes:
        """The bytes."""
        return POLICY_VALUE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "PolicyValue":
        """From the bytes."""
        return cls(*POLICY_VALUE.unpack(data))


EVENT_HEADER = struct.Struct("=BBHIIHH")


class EventHeader(NamedTuple):
    """``struct event_header``."""

    type: int
    subtype: int
    source: int
    hash: int
    length: int
    capture: int
    version: int

    def pack(self) -> bytes:
        """The bytes."""
        return EVENT_HEADER.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "EventHeader":
        """From the bytes."""
        return cls(*EVENT_HEADER.unpack(data))


DROP_EVENT = struct.Struct("=16sIIIHBbI")


class DropEvent(NamedTuple):
    """``struct drop_event``."""

    header: bytes
    source_identity: int
    destination_identity: int
    destination_endpoint: int
    line: int
    file: int
    error: int
    ifindex: int

    def pack(self) -> bytes:
        """The bytes."""
        return DROP_EVENT.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "DropEvent":
        """From the bytes."""
        return cls(*DROP_EVENT.unpack(data))


TRACE_EVENT = struct.Struct("=16sIIHBBI16s")


class TraceEvent(NamedTuple):
    """``struct trace_event``."""

    header: bytes
    source_identity: int
    destination_identity: int
    destination_endpoint: int
    reason: int
    flags: int
    ifindex: int
    original: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return TRACE_EVENT.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "TraceEvent":
        """From the bytes."""
        return cls(*TRACE_EVENT.unpack(data))


TRANSLATION_EVENT = struct.Struct("=BB16sHQQBB16sHHI")


class TranslationEvent(NamedTuple):
    """``struct translation_event``."""

    type: int
    point: int
    destination: bytes
    destination_port: int
    cookie: int
    cgroup: int
    protocol: int
    flags: int
    source: bytes
    source_port: int
    endpoint: int
    source_identity: int

    def pack(self) -> bytes:
        """The bytes."""
        return TRANSLATION_EVENT.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "TranslationEvent":
        """From the bytes."""
        return cls(*TRANSLATION_EVENT.unpack(data))


POLICY_VERDICT_EVENT = struct.Struct("=16sIiHBBBBH")


class PolicyVerdictEvent(NamedTuple):
    """``struct policy_verdict_event``."""

    header: bytes
    remote_identity: int
    verdict: int
    port: int
    protocol: int
    flags: int
    auth: int
    rule_high: int
    rule: int

    def pack(self) -> bytes:
        """The bytes."""
        return POLICY_VERDICT_EVENT.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> "PolicyVerdictEvent":
        """From the bytes."""
        return cls(*POLICY_VERDICT_EVENT.unpack(data))
