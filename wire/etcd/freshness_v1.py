"""``cilium/synced/<cluster>/isthmus.io/freshness``: how old a mirrored copy is. Pure.

Written beside the canaries by the mirror; a reader that does not know the key passes it by.
"""

import msgspec

from wire.etcd.codec import decode_json, encode_json


class Freshness(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the mirror says of its connection to the cluster it copies."""

    heard: str = ""  # RFC 3339: when that cluster was last heard of
    connected: bool = False
    error: str = ""


def encode(value: Freshness) -> bytes:
    """The value of the key."""
    return encode_json(value)


def decode(data: bytes, where: str) -> Freshness:
    """Raises ``RemoteWireError``."""
    return decode_json(data, Freshness, where)
