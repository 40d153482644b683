"""Messages as the dictionaries of their JSON, with the names of the .proto. Pure.

The same as ``json_format.MessageToDict(preserving_proto_field_name=True)``, three times as fast: it
asks each kind of message once what its fields are.
"""

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Convert = Callable[[Any], Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONG: Final = frozenset(
    (
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT64,
    )
)
_KNOWN: Final = "google.protobuf."
_BARE: Final = frozenset(f"{_KNOWN}{kind}Value" for kind in ("Bool", "Int32", "UInt32"))
_fields: dict[FieldDescriptor, Convert] = {}


def as_dict(message: Message) -> dict[str, Any]:
    """What is set, in the order of the fields' numbers."""
    return {
        field.name: (_fields.get(field) or _field(field))(value)
        for field, value in message.ListFields()
    }


def _field(field: FieldDescriptor) -> Convert:
    convert = _value(field)
    if field.is_repeated:
        one = convert
        convert = lambda values: [one(value) for value in values]  # noqa: E731
    _fields[field] = convert
    return convert


def _value(field: FieldDescriptor) -> Convert:
    kind = field.cpp_type
    if field.message_type is not None:
        return _message(field.message_type)
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if kind in _LONG:
        return str
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return _double
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        raise TypeError(f"{field.full_name}: to print a short number so exactly is the library's")
    return _same


def _same(value: Any) -> Any:
    return value


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _message(kind: Descriptor) -> Convert:
    name = kind.full_name
    if name == "google.protobuf.Timestamp":
        return _timestamp
    if name in _BARE:
        return lambda wrapper: wrapper.value
    if name.startswith(_KNOWN) or kind.GetOptions().map_entry:
        return _by_library
    return as_dict


def _timestamp(time: Any) -> str:
    text = (_EPOCH + timedelta(seconds=time.seconds)).isoformat()[:19]
    nanos = time.nanos
    if not nanos:
        return f"{text}Z"
    digits = 3 if not nanos % 10**6 else 6 if not nanos % 10**3 else 9
    return f"{text}.{nanos:09d}"[: 20 + digits] + "Z"


def _by_library(value: Message) -> Any:
    from google.protobuf import json_format  # rarely needed, and takes long to load

    return json_format.MessageToDict(value, preserving_proto_field_name=True)
