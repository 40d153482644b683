"""An etcd over gRPC: the one importer of the client library. Adapter.

Every reply must carry the etcd cluster ID that the first one carried: behind one address there may
be several independent etcds, whose revisions mean nothing to each other.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import grpc
import grpc.aio

from kvstore import diagnose, messages
from kvstore import rpc_pb2 as pb
from kvstore.bulk import RawRow
from kvstore.channels import Channel
from kvstore.config import Endpoint, StoreConfig
from kvstore.http2 import StreamLostError
from kvstore.observed import OBSERVED, described
from kvstore.port import (
    Batch,
    ClusterIdChangedError,
    CompactedError,
    Compare,
    KeyValue,
    LeaseNotFoundError,
    NoSpaceError,
    Op,
    PermissionDeniedError,
    Snapshot,
    StoreError,
    StoreStatus,
    TxnResult,
    UnavailableError,
    prefix_end,
)
from kvstore.shared_watch import BehindError, Take
from kvstore.watch_call import WatchCall

PAGE_ROWS = 5000  # one round trip per 5,000 rows: 10 to 50 times faster than pages of 256
CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
_REQUIRE_LEADER = (("hasleader", "true"),)
FULL = (
    "the store is full (alarm NOSPACE) and takes no writes: where it runs, do `etcdctl compact "
    "$(etcdctl endpoint status -w fields | sed -n 's/.*Revision.* : //p')`, `etcdctl defrag` and "
    "`etcdctl alarm disarm`, or start it with a larger --quota-backend-bytes"
)


class EtcdStore:
    """One connection to one etcd member."""

    def __init__(self, endpoint: Endpoint, config: StoreConfig) -> None:
        self._endpoint = endpoint
        self._config = config
        self._cluster_id = 0
        self._held = Channel(endpoint, config)
        self._channel = self._held.grpc

    @property
    def cluster_id(self) -> int:
        """The etcd cluster this connection is pinned to; 0 before the first reply."""
        return self._cluster_id

    @property
    def endpoint(self) -> str:
        """The address in use."""
        return self._endpoint.authority

    async def get(self, key: str, *, within: str = "") -> KeyValue | None:
        if within and (listed := await self._listed(within, key, f"{key}\0".encode())) is not None:
            return listed.rows[0] if listed.rows else None
        reply = await self._call("KV/Range", pb.RangeRequest(key=key.encode()), pb.RangeResponse)
        return messages.row(reply.kvs[0]) if reply.kvs else None

    async def range(
        self,
        prefix: str,
        *,
        limit: int = 0,
        revision: int = 0,
        start: str = "",
        keys_only: bool = False,
        within: str = "",
    ) -> Snapshot:
        end = prefix_end(prefix)
        if within and (listed := await self._listed(within, prefix, end)) is not None:
            return listed
        # "All keys" is asked for by the range from \0 to \0.
        key = (start or prefix).encode() or b"\0"
        rows: list[KeyValue] = []
        count = 0
        while True:
            want = min(PAGE_ROWS, limit - len(rows)) if limit else PAGE_ROWS
            reply = await self._call(
                "KV/Range",
                pb.RangeRequest(
                    key=key, range_end=end, limit=want, revision=revision, keys_only=keys_only
                ),
                pb.RangeResponse,
            )
            if not revision:
                revision = reply.header.revision
            count = count or reply.count
            rows += map(messages.row, reply.kvs)
            if not reply.more or (limit and len(rows) >= limit):
                return Snapshot(revision, tuple(rows), reply.more, count)
            key = reply.kvs[-1].key + b"\0"

    async def _listed(self, within: str, start: str, end: bytes) -> Snapshot | None:
        """Part of a listing for many; ``None``: there is none, or it does not go so far."""

        async def read() -> Any:
            request = pb.RangeRequest(
                key=within.encode(), range_end=prefix_end(within), limit=PAGE_ROWS
            )
            return await self._call("KV/Range", request, pb.RangeResponse)

        reply = await self._held.listing(within).ask(read)
        if reply is None:
            return None
        self._pin(reply.header)
        return messages.part(reply, start.encode(), end)

    async def pages(self, prefix: str) -> AsyncIterator[tuple[int, Sequence[RawRow]]]:
        key, revision = prefix.encode(), 0
        while True:
            reply = await self._call(
                "KV/Range",
                pb.RangeRequest(
                    key=key, range_end=prefix_end(prefix), limit=PAGE_ROWS, revision=revision
                ),
                pb.RangeResponse,
            )
            revision = revision or reply.header.revision
            yield revision, reply.kvs
            if not reply.more:
                return
            key = reply.kvs[-1].key + b"\0"

    async def write(self, rows: Mapping[bytes, bytes | None], leases: Mapping[bytes, int]) -> None:
        request = pb.TxnRequest()
        operations = request.success
        for key, value in rows.items():
            if value is None:
                operations.add().request_delete_range.key = key
            else:
                put = operations.add().request_put
                put.key, put.value, put.lease = key, value, leases.get(key, 0)
        await self._call("KV/Txn", request, pb.TxnResponse)

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        request = pb.PutRequest(key=key.encode(), value=value, lease=lease)
        return int((await self._call("KV/Put", request, pb.PutResponse)).header.revision)

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        request = messages.delete_request(key, prefix)
        return int(
            (await self._call("KV/DeleteRange", request, pb.DeleteRangeResponse)).header.revision
        )

    async def txn(
        self,
        then: Sequence[Op],
        *,
        compare: Sequence[Compare] = (),
        otherwise: Sequence[Op] = (),
    ) -> TxnResult:
        request = pb.TxnRequest(
            compare=[messages.comparison(c) for c in compare],
            success=[messages.operation(o) for o in then],
            failure=[messages.operation(o) for o in otherwise],
        )
        reply = await self._call("KV/Txn", request, pb.TxnResponse)
        reads = tuple(
            messages.row(r.response_range.kvs[0]) if r.response_range.kvs else None
            for r in reply.responses
            if r.WhichOneof("response") == "response_range"
        )
        return TxnResult(reply.succeeded, reply.header.revision, reads)

    async def watch(
        self,
        prefix: str,
        revision: int,
        *,
        previous: bool = False,
        progress: bool = False,
        exact: bool = False,
        within: str = "",
        take: Callable[[Batch], bool] | None = None,
    ) -> AsyncIterator[Batch]:
        shared = self._held.watch(within, self._shared_stream) if within else None
        told = self._taking(take) if take else None
        if shared is not None and (follower := shared.follow(prefix, revision, told)) is not None:
            try:
                while True:
                    try:
                        reply, batch = await shared.next(follower)
                    except (StreamLostError, BehindError) as error:
                        raise self._lost(f"watch {prefix} on {self.endpoint}", error) from error
                    self._pin(reply.header)
                    if reply.canceled:
                        raise messages.cancelled(f"watch {prefix} on {self.endpoint}", reply)
                    handed = perf_counter()
                    yield batch
                    messages.observe(batch.events, handed)
            finally:
                shared.leave(prefix, follower)
        request = pb.WatchCreateRequest(
            key=prefix.encode() or b"\0",
            range_end=b"" if exact else prefix_end(prefix),
            start_revision=revision,
            progress_notify=progress,
            prev_kv=previous,
        )
        async with contextlib.aclosing(self._watch(f"watch {prefix}", request)) as replies:
            async for reply in replies:
                batch = Batch(reply.header.revision, tuple(map(messages.event, reply.events)))
                handed = perf_counter()
                yield batch
                messages.observe(batch.events, handed)

    def _taking(self, take: Callable[[Batch], bool]) -> Take:
        def taken(store: int, batch: Batch) -> bool:
            return store == self._cluster_id != 0 and take(batch)

        return taken

    async def raw_watch(
        self, prefix: str, revision: int
    ) -> AsyncGenerator[tuple[int, Sequence[tuple[bytes, bytes | None]]]]:
        request = pb.WatchCreateRequest(
            key=prefix.encode(), range_end=prefix_end(prefix), start_revision=revision
        )
        async with contextlib.aclosing(self._watch(f"watch {prefix}", request)) as replies:
            async for reply in replies:
                if events := reply.events:
                    # The header may be ahead of a part of a backlog: only the rows tell.
                    rows = [(e.kv.key, None if e.type else e.kv.value) for e in events]
                    handed = perf_counter()
                    yield events[-1].kv.mod_revision, rows
                    messages.observe((messages.event(events[0]),), handed)

    def _shared_stream(self) -> WatchCall:
        return WatchCall(self._endpoint, self._config)

    def _watch_stream(self) -> Any:
        return self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )(metadata=_REQUIRE_LEADER)

    def _lost(self, what: str, error: StreamLostError | BehindError) -> StoreError:
        """A shared watch has ended."""
        if isinstance(error, BehindError):
            return CompactedError(f"{what}: too far behind", 0)
        OBSERVED.quorum_errors.add("unavailable")
        self._held.distrust()
        return UnavailableError(f"{what}: {error}")

    async def _watch(self, what: str, request: Any) -> AsyncGenerator[Any]:
        call = self._watch_stream()
        try:
            await call.write(pb.WatchRequest(create_request=request))
            while True:
                reply = await call.read()
                if reply is grpc.aio.EOF:
                    raise UnavailableError(f"{what} on {self.endpoint}: the stream ended")
                self._pin(reply.header)
                if reply.canceled:
                    raise messages.cancelled(f"{what} on {self.endpoint}", reply)
                yield reply
        except grpc.aio.AioRpcError as error:
            raise self._error(what, error) from error
        except asyncio.InvalidStateError as error:  # the channel was closed under us
            raise UnavailableError(f"{what} on {self.endpoint}: {error}") from error
        finally:
            call.cancel()

    async def grant(self, ttl_s: int) -> int:
        reply = await self._call(
            "Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=ttl_s), pb.LeaseGrantResponse
        )
        return int(reply.ID)

    async def keep_alive(self, lease: int) -> int:
        call = self._channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )(timeout=CALL_TIMEOUT_S, metadata=_REQUIRE_LEADER)
        what = f"keep lease {lease:x}"
        outcome, began = "fail", perf_counter()
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            reply = await call.read()
            outcome = "success"
        except grpc.aio.AioRpcError as error:
            raise self._error(what, error) from error
        finally:
            call.cancel()
            labels = ("leases", "set", "keepalive", outcome)
            OBSERVED.operations.observe(perf_counter() - began, *labels)
        if reply is grpc.aio.EOF:
            raise UnavailableError(f"{what} on {self.endpoint}: the stream ended")
        self._pin(reply.header)
        if reply.TTL <= 0:
            raise LeaseNotFoundError(f"{what} on {self.endpoint}: it has expired")
        return int(reply.TTL)

    async def revoke(self, lease: int) -> None:
        with contextlib.suppress(LeaseNotFoundError):
            await self._call(
                "Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse
            )

    async def compact(self, revision: int) -> None:
        request = pb.CompactionRequest(revision=revision, physical=True)
        with contextlib.suppress(CompactedError):
            await self._call("KV/Compact", request, pb.CompactionResponse)

    async def status(self) -> StoreStatus:
        reply = await self._call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        return StoreStatus(
            reply.version, reply.header.revision, reply.dbSize, reply.header.cluster_id
        )

    async def add_role(self, role: str) -> None:
        await self._auth("RoleAdd", pb.AuthRoleAddRequest(name=role), "already exists")

    async def grant_permission(
        self, role: str, key: str, range_end: str, *, read: bool, write: bool
    ) -> None:
        kind = {(True, True): 2, (False, True): 1}.get((read, write), 0)
        permission = pb.Permission(permType=kind, key=key.encode(), range_end=range_end.encode())
        await self._auth(
            "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        )

    async def add_user(self, user: str) -> None:
        request = pb.AuthUserAddRequest(name=user, options=pb.UserAddOptions(no_password=True))
        await self._auth("UserAdd", request, "already exists")

    async def delete_user(self, user: str) -> None:
        await self._auth("UserDelete", pb.AuthUserDeleteRequest(name=user), "not found")

    async def grant_role(self, user: str, role: str) -> None:
        await self._auth("UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role))

    async def enable_auth(self) -> None:
        await self._auth("AuthEnable", pb.AuthEnableRequest())

    async def close(self) -> None:
        await self._held.close()

    async def _auth(self, method: str, request: Any, harmless: str = "\0") -> None:
        try:
            await self._call(f"Auth/{method}", request, pb.AuthResponse)
        except StoreError as error:
            if harmless not in str(error):
                raise

    async def _call(self, method: str, request: Any, reply_type: Any) -> Any:
        call = self._channel.unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply_type.FromString,
        )
        outcome, began = "fail", perf_counter()
        try:
            reply = await call(request, timeout=CALL_TIMEOUT_S, metadata=_REQUIRE_LEADER)
            self._pin(reply.header)
            outcome = "success"
        except grpc.aio.AioRpcError as error:
            raise self._error(method, error) from error
        except asyncio.InvalidStateError as error:
            raise UnavailableError(f"{method} on {self.endpoint}: {error}") from error
        except grpc.aio.UsageError as error:  # the channel was closed under us
            raise UnavailableError(f"{method} on {self.endpoint}: {error}") from error
        finally:
            labels = described(method, request)
            OBSERVED.operations.observe(perf_counter() - began, *labels, outcome)
        return reply

    def _pin(self, header: Any) -> None:
        if not header.cluster_id:
            raise ClusterIdChangedError(f"{self.endpoint}: a reply without an etcd header")
        if not self._cluster_id:
            self._cluster_id = header.cluster_id
        elif header.cluster_id != self._cluster_id:
            OBSERVED.quorum_errors.add("etcd cluster ID has changed")
            self._held.distrust()
            raise ClusterIdChangedError(
                f"{self.endpoint}: etcd cluster ID has changed from {self._cluster_id:x} "
                f"to {header.cluster_id:x}"
            )

    def _error(self, what: str, error: grpc.aio.AioRpcError) -> StoreError:
        code, details = error.code(), error.details() or ""
        text = f"{what} on {self.endpoint}: {details or code.name}"
        if "compacted" in details:
            return CompactedError(text, 0)
        if code is grpc.StatusCode.PERMISSION_DENIED or "permission denied" in details:
            return PermissionDeniedError(text)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "space" in details:
            return NoSpaceError(f"{text}: {FULL}")
        if "lease not found" in details:
            return LeaseNotFoundError(text)
        if code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.CANCELLED,
        ):
            OBSERVED.quorum_errors.add(code.name.lower().replace("_", " "))
            self._held.distrust()
            return UnavailableError(text)
        return StoreError(text)


async def connect(config: StoreConfig) -> EtcdStore:
    """A connection to the first endpoint that answers.

    Raises ``UnavailableError`` with the reason each endpoint gave; the certificate files are read
    anew every time, so a rotated certificate needs no restart.
    """
    reasons = []
    for endpoint in config.targets():
        try:
            store = EtcdStore(endpoint, config)
        except OSError as error:
            raise UnavailableError(f"{error.filename}: {error.strerror}") from error
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await store._channel.channel_ready()
            return store
        except TimeoutError:
            store._held.distrust()
            await store.close()
            reason = await asyncio.to_thread(diagnose.explain, config, endpoint)
            reasons.append(reason or f"{endpoint.authority} does not speak etcd's protocol")
    raise UnavailableError("; ".join(reasons))
