"""Messages as JSON are what the library makes of them, however they are filled."""

from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from wire.hubble import observer_pb2, status_pb2
from wire.hubble.as_json import as_dict

INTS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def of_field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return of_kind(field.message_type, depth + 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values] + [7777])
    if field.cpp_type in INTS:
        return st.integers(*INTS[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=5)
    return st.text(max_size=5)


@st.composite
def of_kind(draw: st.DrawFn, kind: Descriptor, depth: int = 0) -> Message:
    """A message with some of its fields."""
    made: Any = kind._concrete_class()
    if kind.full_name == "google.protobuf.Timestamp":
        made.seconds = draw(st.integers(0, 253402300799))
        made.nanos = draw(st.sampled_from([0, 1, 1000, 123_000_000, 999_999_999, 10**6]))
        return made
    fields = [f for f in kind.fields if depth < 4 and f.name != "extensions"]
    for field in draw(st.lists(st.sampled_from(fields), max_size=8)) if fields else []:
        value = draw(of_field(field, depth))
        if field.is_repeated:
            getattr(made, field.name).append(value)
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(value)
        else:
            setattr(made, field.name, value)
    return made


@given(
    st.one_of(
        of_kind(observer_pb2.GetFlowsResponse.DESCRIPTOR),
        of_kind(observer_pb2.ExportEvent.DESCRIPTOR),
        of_kind(observer_pb2.GetNodesResponse.DESCRIPTOR),
        of_kind(observer_pb2.ServerStatusResponse.DESCRIPTOR),
    )
)
def test_as_the_library_has_it(message: Message) -> None:
    """Names, numbers as text where they are long, times, what is bare; unknown enums as numbers."""
    expected = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert as_dict(message) == expected


def test_what_it_does_not_know_is_refused() -> None:
    """Short numbers with a point are in no flow."""
    with pytest.raises(TypeError, match=r"per_second"):
        as_dict(status_pb2.FlowStats(per_second=1.5))
