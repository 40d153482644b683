"""Values of the port and messages of etcd's protocol, one for the other."""

from bisect import bisect_left
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from kvstore import rpc_pb2 as pb
from kvstore.observed import OBSERVED, scope_of
from kvstore.port import (
    CompactedError,
    Compare,
    Delete,
    DeleteOp,
    Event,
    Field,
    GetOp,
    KeyValue,
    Op,
    PermissionDeniedError,
    Put,
    PutOp,
    Snapshot,
    StoreError,
    UnavailableError,
    prefix_end,
)


def row(kv: Any) -> KeyValue:
    """A row, decoded."""
    return KeyValue(
        kv.key.decode("utf-8", "surrogateescape"),
        kv.value,
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.lease,
    )


def part(reply: Any, start: bytes, end: bytes) -> Snapshot | None:
    """The rows of a listing from ``start`` to before ``end``; ``None``: it does not go so far."""
    first, last = (bisect_left(reply.kvs, at, key=_key) for at in (start, end))
    if last == len(reply.kvs) and reply.more:
        return None
    rows = tuple(map(row, reply.kvs[first:last]))
    return Snapshot(reply.header.revision, rows, count=len(rows))


def _key(row: Any) -> bytes:
    return bytes(row.key)


def event(event: Any) -> Event:
    """An event, decoded."""
    previous = row(event.prev_kv) if event.HasField("prev_kv") else None
    kv = event.kv
    if event.type:
        key = kv.key.decode("utf-8", "surrogateescape")
        return Delete(key, kv.mod_revision, previous)
    return Put(row(kv), previous)


def observe(events: Sequence[Event], handed: float) -> None:
    """How long the events of one message took whoever got them."""
    if events:
        first = events[0]
        action = "delete" if isinstance(first, Delete) else "modify"
        key = first.key.encode("utf-8", "surrogateescape").decode(errors="replace")
        OBSERVED.events.observe(perf_counter() - handed, scope_of(key), action)


def delete_request(key: str, prefix: bool) -> Any:
    """Of a key or a prefix."""
    end = prefix_end(key) if prefix else b""
    return pb.DeleteRangeRequest(key=key.encode() or b"\0", range_end=end)


def operation(op: Op) -> Any:
    """Of a transaction."""
    match op:
        case PutOp(key, value, lease):
            request = pb.PutRequest(key=key.encode(), value=value, lease=lease)
            return pb.RequestOp(request_put=request)
        case DeleteOp(key, prefix):
            return pb.RequestOp(request_delete_range=delete_request(key, prefix))
        case GetOp(key):
            return pb.RequestOp(request_range=pb.RangeRequest(key=key.encode()))


def comparison(compare: Compare) -> Any:
    """Of a transaction."""
    out = pb.Compare(result=pb.Compare.EQUAL, key=compare.key.encode())
    match compare.field:
        case Field.MOD_REVISION:
            out.target, out.mod_revision = pb.Compare.MOD, compare.equals
        case Field.CREATE_REVISION:
            out.target, out.create_revision = pb.Compare.CREATE, compare.equals
        case Field.VERSION:
            out.target, out.version = pb.Compare.VERSION, compare.equals
    return out


def cancelled(what: str, reply: Any) -> StoreError:
    """Why the store ended a watch."""
    if reply.compact_revision:
        return CompactedError(
            f"{what}: compacted up to revision {reply.compact_revision}", reply.compact_revision
        )
    if "permission denied" in reply.cancel_reason:
        return PermissionDeniedError(f"{what}: {reply.cancel_reason}")
    return UnavailableError(f"{what}: {reply.cancel_reason or 'cancelled by the server'}")
