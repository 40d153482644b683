"""``cilium/state/ip/v1/default/<ip>[/<length>]``: identity and node of an address. Pure."""

from collections.abc import Callable, Iterable
from sys import intern

import msgspec

from model.address import Address, Prefix, parse_address, parse_host, parse_prefix
from model.cluster import IdentityRange
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import EndpointAddress
from wire.etcd.codec import address, decode_json, encode_json, encode_mask, masked
from wire.etcd.errors import RemoteWireError

NOBODY = "<nil>"  # some writers leave a key of this name behind; it says nothing
FIRST_CLUSTER_IDENTITY = 256  # below: reserved, the same in every cluster
_HOST = int(ReservedIdentity.HOST)
_REMOTE_NODE = NumericIdentity(ReservedIdentity.REMOTE_NODE)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    IP: str
    Mask: str | None = None
    HostIP: str = ""
    ID: NumericIdentity = NumericIdentity(0)
    Key: int = 0
    Metadata: str = ""


class _Pod(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    K8sNamespace: str = ""
    K8sPodName: str = ""
    K8sServiceAccount: str = ""


class _Full(_Entry):
    K8sNamespace: str = ""
    K8sPodName: str = ""
    K8sServiceAccount: str = ""


_full = msgspec.json.Decoder(_Full).decode


def encode(ip: Address | Prefix, entry: EndpointAddress) -> bytes:
    """The value of the key. Pod fields are left out where empty, all others always present."""
    mask = None
    text = str(ip)
    if isinstance(ip, Prefix):
        text = str(ip.network_address)
        mask = encode_mask(ip)
    host = "" if entry.host_ip is None else str(entry.host_ip)
    head = encode_json(_Entry(text, mask, host, entry.identity, entry.key))
    tail = encode_json(_Pod(entry.namespace, entry.pod, entry.service_account))
    return head if tail == b"{}" else head[:-1] + b"," + tail[1:]


def decode(
    name: str,
    data: bytes,
    allowed: IdentityRange,
    where: str,
    numbers: dict[NumericIdentity, NumericIdentity] | None = None,
) -> tuple[Prefix, EndpointAddress]:
    """Raises ``RemoteWireError``. A remote's host (1) is remote-node (6) to us.

    ``numbers``: those of other rows, to be shared.
    """
    try:  # the usual value, in one step
        raw = _full(data)
        prefix = parse_host(raw.IP) if raw.Mask is None else _prefix(raw, where)
        host = parse_address(raw.HostIP) if raw.HostIP else None
    except (ValueError, RecursionError):
        raw = decode_json(data, _Full, where)
        prefix = _prefix(raw, where)
        host = address(raw.HostIP, where) if raw.HostIP else None
    said = raw.IP if raw.Mask is None else str(prefix)
    if name != said:
        raise RemoteWireError(where, f"the value speaks of {said!r}, the key of {name!r}")
    number = raw.ID
    if not (allowed.first <= number <= allowed.last or 0 <= number < FIRST_CLUSTER_IDENTITY):
        raise RemoteWireError(
            where, f"identity {raw.ID} is outside {allowed.first}..{allowed.last} of this cluster"
        )
    if numbers is not None:
        number = numbers.setdefault(number, number)
    if not 0 <= raw.Key <= 255:
        raise RemoteWireError(where, f"encryption key {raw.Key} is outside 0..255")
    return prefix, EndpointAddress(
        host,
        _REMOTE_NODE if number == _HOST else number,
        raw.Key,
        intern(raw.K8sNamespace),  # few, and said by many
        raw.K8sPodName,
        intern(raw.K8sServiceAccount),
    )


def decode_rows(
    rows: Iterable[tuple[str, bytes | None]],
    prefix: str,
    allowed: IdentityRange,
    most_bytes: int,
    refuse: Callable[[str], None],
) -> list[tuple[Prefix, EndpointAddress | None]]:
    """Rows by their names below ``prefix``; ``None``: gone.

    A value that does not decode or takes more than ``most_bytes`` is passed over and told.
    """
    found: list[tuple[Prefix, EndpointAddress | None]] = []
    numbers: dict[NumericIdentity, NumericIdentity] = {}  # one object for all that are equal
    for name, data in rows:
        try:
            if data is None:
                if name != NOBODY:
                    found.append((decode_name(name, name), None))
            elif len(data) <= most_bytes:
                found.append(decode(name, data, allowed, name, numbers))
            elif name != NOBODY:
                refuse(f"{prefix}{name}: {len(data)} bytes, more than the {most_bytes} of a value")
        except RemoteWireError as error:
            if data is not None and name != NOBODY:  # what was never believed is no loss
                refuse(f"{prefix}{error}")
    return found


def _prefix(raw: _Full, where: str) -> Prefix:
    if raw.Mask is None:
        try:
            return parse_host(raw.IP)
        except ValueError as error:
            raise RemoteWireError(where, f"{raw.IP!r} is not an IP address") from error
    ip = address(raw.IP, where)
    try:
        return masked(ip, raw.Mask)
    except ValueError as error:
        raise RemoteWireError(where, f"mask {raw.Mask!r} of {raw.IP}: {error}") from error


def decode_name(name: str, where: str) -> Prefix:
    """The prefix in a key. Raises ``RemoteWireError``."""
    try:
        return parse_prefix(name)
    except ValueError as error:
        raise RemoteWireError(where, f"{name!r} is no address and no prefix") from error
