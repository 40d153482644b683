"""One connection for all who read the same store with the same certificates. Adapter.

A KVStoreMesh keeps hundreds of clusters in one store, and an agent has a session for each: a
handshake of its own costs each of them 4 ms and 100 KB.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio

from kvstore.config import Endpoint, StoreConfig
from kvstore.shared_listing import SharedListing
from kvstore.shared_watch import Open, SharedWatch

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # A link that swallows everything is noticed within 16 s. A store takes pings oftener than
    # every 5 s for an attack.
    ("grpc.keepalive_time_ms", 8_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.ping_timeout_ms", 8_000),  # a minute, whatever the line above says
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.use_local_subchannel_pool", 1),  # a new connection really is one
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_Key: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class _Shared:
    channel: Any
    users: int = 0
    watches: dict[str, SharedWatch] = field(default_factory=dict)  # by prefix
    listings: dict[str, SharedListing] = field(default_factory=dict)  # by prefix


_shared: dict[_Key, _Shared] = {}


class Channel:
    """A user's hold on a connection; the last one closes it."""

    def __init__(self, endpoint: Endpoint, config: StoreConfig) -> None:
        """Raises ``OSError`` for a certificate file that cannot be read."""
        files = [_read(path) for path in (config.ca_file, config.key_file, config.cert_file)]
        digests = tuple(hashlib.sha256(data).digest() if data else b"" for data in files)
        self._key: _Key = (id(asyncio.get_running_loop()), endpoint, digests)
        if self._key not in _shared:
            _shared[self._key] = _Shared(_open(endpoint, files))
        self._held = _shared[self._key]
        self._held.users += 1
        self._closed = False

    @property
    def grpc(self) -> Any:
        """The library's channel."""
        return self._held.channel

    def watch(self, prefix: str, open_stream: Open) -> SharedWatch:
        """The one watch of a prefix over this connection."""
        return self._held.watches.setdefault(prefix, SharedWatch(prefix, open_stream))

    def listing(self, prefix: str) -> SharedListing:
        """The one place where reads below a prefix over this connection are gathered."""
        return self._held.listings.setdefault(prefix, SharedListing())

    def distrust(self) -> None:
        """It has failed somebody: who connects from now on gets a new one."""
        if _shared.get(self._key) is self._held:
            del _shared[self._key]

    async def close(self) -> None:
        """Once or more often."""
        if self._closed:
            return
        self._closed = True
        self._held.users -= 1
        if not self._held.users:
            self.distrust()
            await self._held.channel.close()


def _open(endpoint: Endpoint, files: list[bytes | None]) -> Any:
    if not endpoint.secure:
        return grpc.aio.insecure_channel(endpoint.authority, options=_OPTIONS)
    options = [*_OPTIONS]
    if endpoint.server_name != endpoint.address:
        options += [
            ("grpc.ssl_target_name_override", endpoint.server_name),
            ("grpc.default_authority", endpoint.server_name),
        ]
    credentials = grpc.ssl_channel_credentials(*files)
    return grpc.aio.secure_channel(endpoint.authority, credentials, options=options)


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
