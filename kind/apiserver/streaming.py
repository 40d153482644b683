"""Lists and watches: objects on their way to a client, in the shape it asked for. Adapter."""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from kind.apiserver import errors, request, versions
from kind.apiserver.api import Api
from kind.apiserver.cache import Event, Item, Watcher, event_line
from kind.apiserver.objects import Obj, meta
from kind.apiserver.request import Target, View
from kind.apiserver.resources import Resource
from kind.apiserver.selectors import Selection
from kind.apiserver.tables import to_table

BOOKMARK_PERIOD_S = 10.0
_DEFAULT_TIMEOUT_S = 1800
_BATCH_BYTES = 256 * 1024
_encode = msgspec.json.Encoder().encode
Render = Callable[[Item], Obj]


def renderer(
    resource: Resource, view: View, query: Mapping[str, str], headings: bool = True
) -> Render | None:
    """How one object is shown; ``None``: as it is stored."""
    if view.shape == "table":
        include = query.get("includeObject", "Metadata")
        shown = headings

        def table(item: Item) -> Obj:
            nonlocal shown
            version = str(meta(item.obj)["resourceVersion"])
            out = to_table(
                resource,
                [versions.to_shown(resource, item.obj)],
                datetime.now(UTC),
                include,
                {"resourceVersion": version},
                shown,
            )
            shown = headings and view.version == "v1beta1"
            return out

        return table
    if view.shape == "partial":
        return lambda item: partial(item.obj, view)
    if resource.group_version != resource.stored_group_version:
        return lambda item: versions.to_shown(resource, item.obj)
    return None


def partial(obj: Obj, view: View) -> Obj:
    """Metadata only."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{view.version}",
        "metadata": meta(obj),
    }


async def list_objects(
    api: Api, resource: Resource, target: Target, query: Mapping[str, str], view: View
) -> bytes:
    """The JSON of a list; pages come with ``continue``."""
    chosen = request.selection(resource, target, query)
    limit = request.number(query, "limit")
    token = query.get("continue", "")
    asked = request.number(query, "resourceVersion")
    exact = query.get("resourceVersionMatch") == "Exact"
    await api.cache.wait_for(asked)
    start = ""
    if token:
        revision, start = _decode_token(token)
    else:
        revision = asked if exact and asked else api.cache.revision
    if revision == api.cache.revision:
        rows = [(k, i) for k, i in api.cache.select(resource.table, chosen) if k > start]
    else:
        rows = [
            (k, i)
            for k, i in await api.storage.rows_at(resource.table, revision)
            if k > start and chosen.matches(i.obj)
        ]
    info: Obj = {"resourceVersion": str(revision)}
    if limit and len(rows) > limit:
        info["continue"] = _encode_token(revision, rows[limit - 1][0])
        if not (chosen.labels or chosen.fields):
            info["remainingItemCount"] = len(rows) - limit
        rows = rows[:limit]
    return _render_list(resource, [i for _, i in rows], info, query, view)


def _render_list(
    resource: Resource, items: list[Item], info: Obj, query: Mapping[str, str], view: View
) -> bytes:
    if view.shape == "table":
        include = query.get("includeObject", "Metadata")
        shown = [versions.to_shown(resource, i.obj) for i in items]
        return _encode(to_table(resource, shown, datetime.now(UTC), include, info))
    render = renderer(resource, view, query)
    kind, version = resource.list_kind, resource.group_version
    if view.shape == "partial":
        kind, version = "PartialObjectMetadataList", f"meta.k8s.io/{view.version}"
    raws = [i.raw if render is None else _encode(render(i)) for i in items]
    head = _encode({"kind": kind, "apiVersion": version, "metadata": info})
    return head[:-1] + b',"items":[' + b",".join(raws) + b"]}"


def _encode_token(revision: int, last: str) -> str:
    text = _encode({"v": "meta.k8s.io/v1", "rv": revision, "start": last})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _decode_token(token: str) -> tuple[int, str]:
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(found["rv"]), str(found["start"])
    except (ValueError, KeyError, TypeError):
        raise errors.bad_request("continue key is not valid") from None


async def watch_objects(
    api: Api,
    http: web.Request,
    resource: Resource,
    target: Target,
    view: View,
) -> web.StreamResponse:
    """Stream events until the client leaves, its time is up, or it falls behind."""
    query = http.query
    chosen = request.selection(resource, target, query)
    asked = request.number(query, "resourceVersion")
    bookmarks = request.is_true(query, "allowWatchBookmarks")
    initial = query.get("sendInitialEvents", "")
    await api.cache.wait_for(asked)
    fresh = asked == 0 if not initial else initial.lower() in ("true", "1")
    timeout_s = request.number(query, "timeoutSeconds") or _DEFAULT_TIMEOUT_S
    stream = web.StreamResponse(headers={"Content-Type": request.JSON})
    render = renderer(resource, view, query)
    after = api.cache.revision if fresh or not asked else asked
    try:
        with api.cache.watch(resource.table, chosen, after) as watcher:
            first = _initial(api, resource, chosen, render, after) if fresh else []
            if fresh and initial and bookmarks:
                first.append(_bookmark(resource, view, after, end=True))
            await stream.prepare(http)
            if first:
                await stream.write(b"".join(first))
            writer = _Writer(api, stream, watcher, resource, view, render, bookmarks)
            await writer.run(time.monotonic() + timeout_s)
    except errors.ApiError as e:
        if not stream.prepared:
            await stream.prepare(http)
        await stream.write(event_line("ERROR", _encode(e.status())))
    except ConnectionResetError:
        return stream  # the client has left
    await stream.write_eof()
    return stream


def _initial(
    api: Api, resource: Resource, chosen: Selection, render: Render | None, revision: int
) -> list[bytes]:
    return [
        event_line("ADDED", item.raw if render is None else _encode(render(item)))
        for _, item in api.cache.select(resource.table, chosen)
    ]


def _bookmark(resource: Resource, view: View, revision: int, end: bool = False) -> bytes:
    info: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
    if end:
        info["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj: Obj = {"kind": resource.kind, "apiVersion": resource.group_version, "metadata": info}
    if view.shape == "table":
        obj = to_table(resource, [], datetime.now(UTC), "None", info, headings=False)
    elif view.shape == "partial":
        obj = partial(obj, view)
    return event_line("BOOKMARK", _encode(obj))


class _Writer:
    """Moves one watcher's events to its client."""

    def __init__(
        self,
        api: Api,
        stream: web.StreamResponse,
        watcher: Watcher,
        resource: Resource,
        view: View,
        render: Render | None,
        bookmarks: bool,
    ) -> None:
        self._api, self._stream, self._watcher = api, stream, watcher
        self._resource, self._view, self._render = resource, view, render
        self._bookmarks = bookmarks

    async def run(self, deadline: float) -> None:
        """Until the deadline. Raises ``ApiError`` when the watch cannot go on."""
        next_mark = time.monotonic() + BOOKMARK_PERIOD_S
        while True:
            self._watcher.wake.clear()
            while self._watcher.events:
                await self._stream.write(self._take())
            if self._watcher.ended is not None:
                raise self._watcher.ended
            now = time.monotonic()
            if now >= deadline:
                return
            if now >= next_mark:
                next_mark = now + BOOKMARK_PERIOD_S
                await self._mark()
            try:
                async with asyncio.timeout(max(0.0, min(deadline, next_mark) - now)):
                    await self._watcher.wake.wait()
            except TimeoutError:
                continue

    def _take(self) -> bytes:
        """As many queued events as fit into one write."""
        lines, size = [], 0
        events = self._watcher.events
        while events and size < _BATCH_BYTES:
            event = events.popleft()
            self._watcher.progress = event.revision
            line = self._line(event)
            size += len(line)
            lines.append(line)
        return b"".join(lines)

    def _line(self, event: Event) -> bytes:
        if self._render is None:
            return event.line(self._watcher.selection)
        seen = event.seen_by(self._watcher.selection)
        return event_line(seen[0], _encode(self._render(seen[1]))) if seen else b""

    async def _mark(self) -> None:
        """A bookmark: everything up to the cache's revision has been sent."""
        revision = self._api.cache.revision
        if self._bookmarks and not self._watcher.events and revision > self._watcher.progress:
            self._watcher.progress = revision
            await self._stream.write(_bookmark(self._resource, self._view, revision))
