"""What all JSON codecs share: size limit, field names in any case, addresses. Pure.

Unknown fields are ignored; a value is read as a whole or refused as a whole.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from model.address import Address, parse_address
from wire.etcd.errors import RemoteWireError

T = TypeVar("T", bound=msgspec.Struct)

LIMIT_BYTES = 1_572_864  # etcd's own limit of a request, 1.5 MiB: nothing larger can be stored
# Maps whose keys are data and not field names.
_DATA = frozenset({"labels", "annotations", "selector"})


def encode_json(value: msgspec.Struct) -> bytes:
    """Compact JSON in the order of the fields."""
    return msgspec.json.encode(value)


def decode_json(data: bytes, kind: type[T], where: str) -> T:
    """Read one value. Raises ``RemoteWireError``."""
    if len(data) > LIMIT_BYTES:
        raise RemoteWireError(where, f"{len(data)} bytes, more than {LIMIT_BYTES}")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as first:
        try:
            return msgspec.convert(_exact(msgspec.json.decode(data), _names(kind), True), kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # The first error tells more when the names were right and the value was not.
            why = error if "missing required" in str(first) else first
            raise RemoteWireError(where, f"does not decode: {why}") from error


def address(text: str, where: str) -> Address:
    """Read an address. Raises ``RemoteWireError``."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise RemoteWireError(where, f"{text!r} is not an IP address") from error


def _names(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Lower-case to exact name for a struct and the structs inside it."""
    out: dict[str, str] = {}
    todo: list[Any] = [msgspec.inspect.type_info(kind)]
    while todo:
        info = todo.pop()
        for name in ("fields", "types"):
            for part in getattr(info, name, ()):
                if hasattr(part, "encode_name"):
                    out[part.encode_name.lower()] = part.encode_name
                todo.append(getattr(part, "type", part))
        todo += [t for n in ("item_type", "value_type") if (t := getattr(info, n, None))]
    return out


def _exact(value: Any, names: Mapping[str, str], top: bool) -> Any:
    """The same value with field names in their exact case.

    Below the top a key is a field name only where its value is no map: port names are keys too.
    """
    if isinstance(value, list):
        return [_exact(item, names, False) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, item in value.items():
        is_field = top or not isinstance(item, dict)
        exact = names.get(key.lower(), key) if is_field else key
        out[exact] = item if key.lower() in _DATA else _exact(item, names, False)
    return out
