"""What all JSON codecs share: size limit, field names in any case, addresses. Pure.

Unknown fields are ignored, and a field that is null is as good as absent. A value is read as a
whole or refused as a whole. The structs forbid unknown fields, so that the usual value is read in
one step and a field in another case is never taken for an absent one: every other value is brought
into the exact form first.
"""

import base64
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from model.address import Address, Prefix, make_prefix, parse_address, parse_prefix
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


def encode_mask(prefix: Prefix) -> str:
    """The netmask in base64, as a Go program writes bytes."""
    width = prefix.max_prefixlen
    bits = (1 << width) - (1 << width - prefix.prefixlen)
    return base64.b64encode(bits.to_bytes(width // 8)).decode()


def masked(first: Address, mask: str) -> Prefix:
    """The prefix of an address and a netmask in base64. Raises ``ValueError``."""
    width, length = _mask_length(mask)
    if width != first.max_prefixlen:
        raise ValueError("address and mask are of different families")
    return make_prefix(first, length)


@lru_cache
def _mask_length(mask: str) -> tuple[int, int]:
    packed = base64.b64decode(mask, validate=True)
    width, bits = len(packed) * 8, int.from_bytes(packed)
    length = bits.bit_count()
    if bits != (1 << width) - (1 << width - length):
        raise ValueError("the mask has holes")
    return width, length


def prefix(text: str, where: str) -> Prefix:
    """Read ``address/length``. Raises ``RemoteWireError``."""
    try:
        if "/" not in text:
            raise ValueError("it has no length")
        return parse_prefix(text)
    except ValueError as error:
        raise RemoteWireError(where, f"{text!r} is not a prefix: {error}") from error


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
                if item is not None and (f := known.get(name.lower())) is not None
            }
        case msgspec.inspect.ListType(item_type=inner), list():
            return [_exact(item, inner) for item in value]
        case msgspec.inspect.DictType(value_type=inner), dict():
            return {name: _exact(item, inner) for name, item in value.items()}
        case _:
            return value
