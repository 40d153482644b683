from wire.hubble import status_pb2 as _status_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Notification(_message.Message):
    __slots__ = ("conn_state", "data_state", "status", "no_permission")
    CONN_STATE_FIELD_NUMBER: _ClassVar[int]
    DATA_STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NO_PERMISSION_FIELD_NUMBER: _ClassVar[int]
    conn_state: ConnectionState
    data_state: DataState
    status: _status_pb2.GetStatusResponse
    no_permission: NoPermission
    def __init__(self, conn_state: _Optional[_Union[ConnectionState, _Mapping]] = ..., data_state: _Optional[_Union[DataState, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.GetStatusResponse, _Mapping]] = ..., no_permission: _Optional[_Union[NoPermission, _Mapping]] = ...) -> None: ...

class ConnectionState(_message.Message):
    __slots__ = ("relay_connected", "relay_reconnecting", "k8s_unavailable", "k8s_connected")
    RELAY_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    RELAY_RECONNECTING_FIELD_NUMBER: _ClassVar[int]
    K8S_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    K8S_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    relay_connected: bool
    relay_reconnecting: bool
    k8s_unavailable: bool
    k8s_connected: bool
    def __init__(self, relay_connected: _Optional[bool] = ..., relay_reconnecting: _Optional[bool] = ..., k8s_unavailable: _Optional[bool] = ..., k8s_connected: _Optional[bool] = ...) -> None: ...

class DataState(_message.Message):
    __slots__ = ("no_activity",)
    NO_ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    no_activity: bool
    def __init__(self, no_activity: _Optional[bool] = ...) -> None: ...

class NoPermission(_message.Message):
    __slots__ = ("resource", "error")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    resource: str
    error: str
    def __init__(self, resource: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...
