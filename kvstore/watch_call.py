"""A stream of etcd's Watch over a connection of its own. Adapter."""

from typing import Any, Final

from google.protobuf.message import DecodeError

from kvstore import http2
from kvstore import rpc_pb2 as pb
from kvstore.config import Endpoint, StoreConfig

PATH: Final = "/etcdserverpb.Watch/Watch"


class WatchCall:
    """One stream; ``write`` and ``read`` raise ``http2.StreamLostError``."""

    def __init__(self, endpoint: Endpoint, config: StoreConfig) -> None:
        self._endpoint, self._config = endpoint, config
        named = endpoint.secure and endpoint.server_name != endpoint.address
        authority = endpoint.server_name if named else endpoint.authority
        self._call = http2.Call(PATH, authority, endpoint.secure, {"hasleader": "true"})
        self._opened = False

    async def write(self, *requests: Any) -> None:
        """``WatchRequest``s, together; the first one connects."""
        if not self._opened:
            self._opened = True
            await self._open()
        await self._call.write(*(request.SerializeToString() for request in requests))

    async def _open(self) -> None:
        endpoint, config = self._endpoint, self._config
        tls = None
        if endpoint.secure:
            try:
                tls = http2.client_tls(config.ca_file, config.cert_file, config.key_file)
            except OSError as error:
                raise http2.StreamLostError(f"certificates: {error}") from error
        await self._call.open(endpoint.address, endpoint.port, tls, endpoint.server_name)

    async def read(self) -> list[Any]:
        """The ``WatchResponse``s that have come, at least one; those that bring events in one.

        Messages one after the other are one message of this kind: lists grow, and of all else
        the last word counts. What is said of a watch itself must be told apart.
        """
        try:
            said = await self._call.read()
            whole = pb.WatchResponse.FromString(b"".join(said) if len(said) > 1 else said[0])
            if len(said) > 1 and (whole.created or whole.canceled):
                return [pb.WatchResponse.FromString(one) for one in said]
            return [whole]
        except DecodeError as error:
            raise http2.StreamLostError(f"what came is no answer of a watch: {error}") from error

    def rest(self, rest_s: float) -> None:
        """Leave what comes from now on lying for so long, and then take it together."""
        self._call.rest(rest_s)

    def cancel(self) -> None:
        """The end."""
        self._call.cancel()
