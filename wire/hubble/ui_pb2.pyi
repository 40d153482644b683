import datetime

from wire.hubble import flow_pb2 as _flow_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from wire.hubble import notifications_pb2 as _notifications_pb2
from wire.hubble import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN_EVENT: _ClassVar[EventType]
    FLOW: _ClassVar[EventType]
    K8S_NAMESPACE_STATE: _ClassVar[EventType]
    SERVICE_STATE: _ClassVar[EventType]
    SERVICE_LINK_STATE: _ClassVar[EventType]
    FLOWS: _ClassVar[EventType]
    STATUS: _ClassVar[EventType]

class IPProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN_IP_PROTOCOL: _ClassVar[IPProtocol]
    TCP: _ClassVar[IPProtocol]
    UDP: _ClassVar[IPProtocol]
    ICMP_V4: _ClassVar[IPProtocol]
    ICMP_V6: _ClassVar[IPProtocol]

class StateChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN_STATE_CHANGE: _ClassVar[StateChange]
    ADDED: _ClassVar[StateChange]
    MODIFIED: _ClassVar[StateChange]
    DELETED: _ClassVar[StateChange]
    EXISTS: _ClassVar[StateChange]
UNKNOWN_EVENT: EventType
FLOW: EventType
K8S_NAMESPACE_STATE: EventType
SERVICE_STATE: EventType
SERVICE_LINK_STATE: EventType
FLOWS: EventType
STATUS: EventType
UNKNOWN_IP_PROTOCOL: IPProtocol
TCP: IPProtocol
UDP: IPProtocol
ICMP_V4: IPProtocol
ICMP_V6: IPProtocol
UNKNOWN_STATE_CHANGE: StateChange
ADDED: StateChange
MODIFIED: StateChange
DELETED: StateChange
EXISTS: StateChange

class GetEventsRequest(_message.Message):
    __slots__ = ("event_types", "blacklist", "whitelist", "since", "status_request")
    EVENT_TYPES_FIELD_NUMBER: _ClassVar[int]
    BLACKLIST_FIELD_NUMBER: _ClassVar[int]
    WHITELIST_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    event_types: _containers.RepeatedScalarFieldContainer[EventType]
    blacklist: _containers.RepeatedCompositeFieldContainer[EventFilter]
    whitelist: _containers.RepeatedCompositeFieldContainer[EventFilter]
    since: _timestamp_pb2.Timestamp
    status_request: _status_pb2.GetStatusRequest
    def __init__(self, event_types: _Optional[_Iterable[_Union[EventType, str]]] = ..., blacklist: _Optional[_Iterable[_Union[EventFilter, _Mapping]]] = ..., whitelist: _Optional[_Iterable[_Union[EventFilter, _Mapping]]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status_request: _Optional[_Union[_status_pb2.GetStatusRequest, _Mapping]] = ...) -> None: ...

class GetEventsResponse(_message.Message):
    __slots__ = ("node", "timestamp", "events")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    timestamp: _timestamp_pb2.Timestamp
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, node: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("flow", "namespace_state", "service_state", "service_link_state", "flows", "notification")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_STATE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_STATE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_LINK_STATE_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    flow: _flow_pb2.Flow
    namespace_state: NamespaceState
    service_state: ServiceState
    service_link_state: ServiceLinkState
    flows: Flows
    notification: _notifications_pb2.Notification
    def __init__(self, flow: _Optional[_Union[_flow_pb2.Flow, _Mapping]] = ..., namespace_state: _Optional[_Union[NamespaceState, _Mapping]] = ..., service_state: _Optional[_Union[ServiceState, _Mapping]] = ..., service_link_state: _Optional[_Union[ServiceLinkState, _Mapping]] = ..., flows: _Optional[_Union[Flows, _Mapping]] = ..., notification: _Optional[_Union[_notifications_pb2.Notification, _Mapping]] = ...) -> None: ...

class Flows(_message.Message):
    __slots__ = ("flows",)
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    flows: _containers.RepeatedCompositeFieldContainer[_flow_pb2.Flow]
    def __init__(self, flows: _Optional[_Iterable[_Union[_flow_pb2.Flow, _Mapping]]] = ...) -> None: ...

class EventFilter(_message.Message):
    __slots__ = ("flow_filter", "service_filter", "service_link_filter")
    FLOW_FILTER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FILTER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_LINK_FILTER_FIELD_NUMBER: _ClassVar[int]
    flow_filter: _flow_pb2.FlowFilter
    service_filter: ServiceFilter
    service_link_filter: ServiceLinkFilter
    def __init__(self, flow_filter: _Optional[_Union[_flow_pb2.FlowFilter, _Mapping]] = ..., service_filter: _Optional[_Union[ServiceFilter, _Mapping]] = ..., service_link_filter: _Optional[_Union[ServiceLinkFilter, _Mapping]] = ...) -> None: ...

class NamespaceDescriptor(_message.Message):
    __slots__ = ("id", "name", "creation_timestamp")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATION_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    creation_timestamp: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., creation_timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NamespaceState(_message.Message):
    __slots__ = ("namespace", "type")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    namespace: NamespaceDescriptor
    type: StateChange
    def __init__(self, namespace: _Optional[_Union[NamespaceDescriptor, _Mapping]] = ..., type: _Optional[_Union[StateChange, str]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("id", "name", "namespace", "labels", "dns_names", "egress_policy_enforced", "ingress_policy_enforced", "visibility_policy_status", "creation_timestamp", "workloads", "identity")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    EGRESS_POLICY_ENFORCED_FIELD_NUMBER: _ClassVar[int]
    INGRESS_POLICY_ENFORCED_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_POLICY_STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATION_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    namespace: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    egress_policy_enforced: bool
    ingress_policy_enforced: bool
    visibility_policy_status: str
    creation_timestamp: _timestamp_pb2.Timestamp
    workloads: _containers.RepeatedCompositeFieldContainer[_flow_pb2.Workload]
    identity: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., namespace: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., dns_names: _Optional[_Iterable[str]] = ..., egress_policy_enforced: _Optional[bool] = ..., ingress_policy_enforced: _Optional[bool] = ..., visibility_policy_status: _Optional[str] = ..., creation_timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., workloads: _Optional[_Iterable[_Union[_flow_pb2.Workload, _Mapping]]] = ..., identity: _Optional[int] = ...) -> None: ...

class ServiceState(_message.Message):
    __slots__ = ("service", "type")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    service: Service
    type: StateChange
    def __init__(self, service: _Optional[_Union[Service, _Mapping]] = ..., type: _Optional[_Union[StateChange, str]] = ...) -> None: ...

class ServiceFilter(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[_Iterable[str]] = ...) -> None: ...

class ServiceLink(_message.Message):
    __slots__ = ("id", "source_id", "destination_id", "destination_port", "ip_protocol", "verdict", "flow_amount", "latency", "bytes_transfered", "auth_type", "is_encrypted")
    class Latency(_message.Message):
        __slots__ = ("min", "max", "avg")
        MIN_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        AVG_FIELD_NUMBER: _ClassVar[int]
        min: _duration_pb2.Duration
        max: _duration_pb2.Duration
        avg: _duration_pb2.Duration
        def __init__(self, min: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., avg: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    IP_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FLOW_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    BYTES_TRANSFERED_FIELD_NUMBER: _ClassVar[int]
    AUTH_TYPE_FIELD_NUMBER: _ClassVar[int]
    IS_ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    id: str
    source_id: str
    destination_id: str
    destination_port: int
    ip_protocol: IPProtocol
    verdict: _flow_pb2.Verdict
    flow_amount: int
    latency: ServiceLink.Latency
    bytes_transfered: int
    auth_type: _flow_pb2.AuthType
    is_encrypted: bool
    def __init__(self, id: _Optional[str] = ..., source_id: _Optional[str] = ..., destination_id: _Optional[str] = ..., destination_port: _Optional[int] = ..., ip_protocol: _Optional[_Union[IPProtocol, str]] = ..., verdict: _Optional[_Union[_flow_pb2.Verdict, str]] = ..., flow_amount: _Optional[int] = ..., latency: _Optional[_Union[ServiceLink.Latency, _Mapping]] = ..., bytes_transfered: _Optional[int] = ..., auth_type: _Optional[_Union[_flow_pb2.AuthType, str]] = ..., is_encrypted: _Optional[bool] = ...) -> None: ...

class ServiceLinkState(_message.Message):
    __slots__ = ("service_link", "type")
    SERVICE_LINK_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    service_link: ServiceLink
    type: StateChange
    def __init__(self, service_link: _Optional[_Union[ServiceLink, _Mapping]] = ..., type: _Optional[_Union[StateChange, str]] = ...) -> None: ...

class ServiceLinkFilter(_message.Message):
    __slots__ = ("source", "destination", "destination_port", "verdict")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    source: _containers.RepeatedCompositeFieldContainer[ServiceFilter]
    destination: _containers.RepeatedCompositeFieldContainer[ServiceFilter]
    destination_port: _containers.RepeatedScalarFieldContainer[str]
    verdict: _containers.RepeatedScalarFieldContainer[_flow_pb2.Verdict]
    def __init__(self, source: _Optional[_Iterable[_Union[ServiceFilter, _Mapping]]] = ..., destination: _Optional[_Iterable[_Union[ServiceFilter, _Mapping]]] = ..., destination_port: _Optional[_Iterable[str]] = ..., verdict: _Optional[_Iterable[_Union[_flow_pb2.Verdict, str]]] = ...) -> None: ...

class GetControlStreamRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetControlStreamResponse(_message.Message):
    __slots__ = ("namespaces", "notification")
    class NamespaceStates(_message.Message):
        __slots__ = ("namespaces",)
        NAMESPACES_FIELD_NUMBER: _ClassVar[int]
        namespaces: _containers.RepeatedCompositeFieldContainer[NamespaceState]
        def __init__(self, namespaces: _Optional[_Iterable[_Union[NamespaceState, _Mapping]]] = ...) -> None: ...
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    namespaces: GetControlStreamResponse.NamespaceStates
    notification: _notifications_pb2.Notification
    def __init__(self, namespaces: _Optional[_Union[GetControlStreamResponse.NamespaceStates, _Mapping]] = ..., notification: _Optional[_Union[_notifications_pb2.Notification, _Mapping]] = ...) -> None: ...
