from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Message(_message.Message):
    __slots__ = ("meta", "body")
    META_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    meta: Meta
    body: Body
    def __init__(self, meta: _Optional[_Union[Meta, _Mapping]] = ..., body: _Optional[_Union[Body, _Mapping]] = ...) -> None: ...

class Meta(_message.Message):
    __slots__ = ("trace_id", "channel_id", "route_name", "is_terminated", "is_not_ready", "is_error", "errors", "poll_delay_ms", "is_empty", "last_datum_id", "next_datum_id")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    ROUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    IS_TERMINATED_FIELD_NUMBER: _ClassVar[int]
    IS_NOT_READY_FIELD_NUMBER: _ClassVar[int]
    IS_ERROR_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    POLL_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    IS_EMPTY_FIELD_NUMBER: _ClassVar[int]
    LAST_DATUM_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_DATUM_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    channel_id: str
    route_name: str
    is_terminated: bool
    is_not_ready: bool
    is_error: bool
    errors: _containers.RepeatedCompositeFieldContainer[Error]
    poll_delay_ms: int
    is_empty: bool
    last_datum_id: str
    next_datum_id: str
    def __init__(self, trace_id: _Optional[str] = ..., channel_id: _Optional[str] = ..., route_name: _Optional[str] = ..., is_terminated: _Optional[bool] = ..., is_not_ready: _Optional[bool] = ..., is_error: _Optional[bool] = ..., errors: _Optional[_Iterable[_Union[Error, _Mapping]]] = ..., poll_delay_ms: _Optional[int] = ..., is_empty: _Optional[bool] = ..., last_datum_id: _Optional[str] = ..., next_datum_id: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("kind", "code", "message")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        Unknown: _ClassVar[Error.Kind]
        Grpc: _ClassVar[Error.Kind]
    Unknown: Error.Kind
    Grpc: Error.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: Error.Kind
    code: int
    message: str
    def __init__(self, kind: _Optional[_Union[Error.Kind, str]] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Body(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...
