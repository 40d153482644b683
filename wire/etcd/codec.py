"""What all JSON codecs share: size limit, field names in any case, addresses. Pure.

Unknown fields are ignored; a value is read as a whole or refused as a whole. The structs forbid
unknown fields, so that the usual value is read in one step and a field in another case is never
taken for an absent one: every other value is brought into the exact form first.
"""

from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from model.address import Address, parse_address
from wire.etcd.errors import RemoteWireError

T = TypeVar("T", bound=msgspec.Struct)

LIMIT_BYTES = 1_572_864  # etcd's own limit of a request, 1.5 MiB: nothing larger can be stored


def encode_json(value: msgspec.Struct) -> bytes:
    """Compact JSON in the order of the fields."""
    return msgspec.json.encode(value)


def decode_json(data: bytes, kind: type[T], where: str) -> T:
    """Read one value. Raises ``RemoteWireError``."""
    if len(data) > LIMIT_BYTES:
        raise RemoteWireError(where, f"{len(data)} bytes, more than {LIMIT_BYTES}")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            return msgspec.convert(_exact(msgspec.json.decode(data), _shape(kind)), kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteWireError(where, f"does not decode: {error}") from error


def address(text: str, where: str) -> Address:
    """Read an address. Raises ``RemoteWireError``."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise RemoteWireError(where, f"{text!r} is not an IP address") from error


@lru_cache
def _shape(kind: type[msgspec.Struct]) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(kind)


def _exact(value: Any, shape: msgspec.inspect.Type) -> Any:
    """The same value with known fields in their exact case and without unknown ones."""
    match shape, value:
        case msgspec.inspect.UnionType(types=types), _:
            for inner in types:
                value = _exact(value, inner)
            return value
        case msgspec.inspect.StructType(fields=fields), dict():
            known = {f.encode_name.lower(): f for f in fields}
            return {
                f.encode_name: _exact(item, f.type)
                for name, item in value.items()
                if (f := known.get(name.lower())) is not None
            }
        case msgspec.inspect.ListType(item_type=inner), list():
            return [_exact(item, inner) for item in value]
        case msgspec.inspect.DictType(value_type=inner), dict():
            return {name: _exact(item, inner) for name, item in value.items()}
        case _:
            return value
