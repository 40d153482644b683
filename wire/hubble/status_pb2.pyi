from wire.hubble import observer_pb2 as _observer_pb2
from wire.hubble import flow_pb2 as _flow_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("nodes", "server_status", "versions", "flows")
    NODES_FIELD_NUMBER: _ClassVar[int]
    SERVER_STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    nodes: _observer_pb2.GetNodesResponse
    server_status: _observer_pb2.ServerStatusResponse
    versions: _containers.RepeatedCompositeFieldContainer[DeployedComponent]
    flows: FlowStats
    def __init__(self, nodes: _Optional[_Union[_observer_pb2.GetNodesResponse, _Mapping]] = ..., server_status: _Optional[_Union[_observer_pb2.ServerStatusResponse, _Mapping]] = ..., versions: _Optional[_Iterable[_Union[DeployedComponent, _Mapping]]] = ..., flows: _Optional[_Union[FlowStats, _Mapping]] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("name", "is_available")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_available: bool
    def __init__(self, name: _Optional[str] = ..., is_available: _Optional[bool] = ...) -> None: ...

class DeployedComponent(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class FlowStats(_message.Message):
    __slots__ = ("per_second",)
    PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    per_second: float
    def __init__(self, per_second: _Optional[float] = ...) -> None: ...
