"""A Kubernetes API server in memory, over real HTTP: what the client and informer may rely on.

It passes the same conformance suite as the lab's server (tests/conformance/test_kube.py). It knows
any kind whose path it is asked for, checks no schema, and has one revision for the whole store.
"""

import asyncio
import copy
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

from aiohttp import WSMsgType, web


class Refusal(Exception):
    """Answered as a Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    def body(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: list[dict[str, Any]]) -> Any:
    """The add, replace, remove and test of RFC 6902."""
    result = copy.deepcopy(target)
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        node = result
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        key: Any = last
        if isinstance(node, list):
            key = len(node) if last == "-" else int(last)
        match operation["op"]:
            case "add" if isinstance(node, list):
                node.insert(key, operation["value"])
            case "add" | "replace":
                node[key] = operation["value"]
            case "remove":
                del node[key]
            case "test":
                if node[key] != operation["value"]:
                    raise Refusal(422, "Invalid", f"test failed at {operation['path']}")
    return result


class FakeKube:
    """The server, its store, and what a test can do to both."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.revision = 100
        self.floor = 0  # revisions up to this one are compacted
        # revision, resource, the object before (None: created) and after (None: deleted)
        self.history: list[tuple[int, str, dict[str, Any] | None, dict[str, Any] | None]] = []
        self.logs: dict[tuple[str, str], str] = {}
        self.tokens: list[str] = []  # Authorization headers, in order
        self.url = ""
        self.ahead_s = 0.0  # of its clock, as its answers tell it
        self._changed = asyncio.Event()
        self._cuts = 0

    async def compact(self) -> None:
        """Forget the history."""
        self.floor = self.revision
        self.history.clear()
        self._wake()

    def inject(self, resource: str, obj: dict[str, Any]) -> None:
        """Tell watchers a new object that no valid request could have stored."""
        self._record(resource, None, obj)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _record(
        self, resource: str, old: dict[str, Any] | None, new: dict[str, Any] | None
    ) -> None:
        self.revision += 1
        (new or old or {})["metadata"]["resourceVersion"] = str(self.revision)
        self.history.append((self.revision, resource, copy.deepcopy(old), copy.deepcopy(new)))
        self._wake()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeKube"]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        app.on_response_prepare.append(self._date)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        if self.ahead_s:
            response.headers["Date"] = formatdate(time.time() + self.ahead_s, usegmt=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        try:
            return await self._route(request)
        except Refusal as refusal:
            return web.json_response(refusal.body(), status=refusal.code)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts == ["version"]:
            return web.json_response({"gitVersion": "v1.30.0-fake"})
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, subresource = (*rest, "", "")[:3]
        if subresource == "exec":
            return await self._exec(request)
        if subresource == "log":
            return web.Response(text=self.logs.get((namespace, name), ""))
        if request.method == "GET" and not name:
            if request.query.get("watch") == "true":
                return await self._watch(request, resource, namespace)
            return web.json_response(self._list(request, resource, namespace))
        body = await request.json() if request.can_read_body else {}
        answer, status = self._write(request, resource, namespace, name, subresource, body)
        return web.json_response(answer, status=status)

    def _write(
        self,
        request: web.Request,
        resource: str,
        namespace: str,
        name: str,
        subresource: str,
        body: Any,
    ) -> tuple[dict[str, Any], int]:
        if request.method == "POST":
            return self._create(resource, namespace, body), 201
        key = (resource, namespace, name)
        current = self.objects.get(key)
        apply = request.headers.get("Content-Type", "").startswith("application/apply-patch")
        if current is None:
            if request.method == "PATCH" and apply:
                return self._create(resource, namespace, body), 201
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
        match request.method:
            case "GET":
                return current, 200
            case "DELETE":
                return self._delete(key, current, body), 200
            case "PUT":
                changed = body
            case _:
                is_json = request.headers["Content-Type"].startswith("application/json-patch")
                changed = json_patch(current, body) if is_json else merge(current, body)
        wanted = changed["metadata"].get("resourceVersion")
        if wanted and wanted != current["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", "the object has been modified")
        return self._replace(key, current, changed, subresource), 200

    def _create(self, resource: str, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        meta = body["metadata"]
        key = (resource, namespace, meta["name"])
        if key in self.objects:
            raise Refusal(409, "AlreadyExists", f'{resource} "{meta["name"]}" already exists')
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = "2026-01-01T00:00:00Z"
        if namespace:
            meta["namespace"] = namespace
        self._record(resource, None, body)
        self.objects[key] = body
        return body

    def _replace(
        self,
        key: tuple[str, str, str],
        current: dict[str, Any],
        changed: dict[str, Any],
        subresource: str,
    ) -> dict[str, Any]:
        if subresource == "status":
            changed = {**current, "status": changed.get("status", {})}
        fixed = {k: current["metadata"].get(k) for k in ("uid", "name", "namespace")}
        changed["metadata"] = {
            **changed["metadata"],
            **{k: v for k, v in fixed.items() if v},
            "resourceVersion": current["metadata"]["resourceVersion"],
        }
        if changed != current:
            self._record(key[0], current, changed)
            self.objects[key] = changed
        return changed

    def _delete(
        self, key: tuple[str, str, str], current: dict[str, Any], body: dict[str, Any]
    ) -> dict[str, Any]:
        for field, wanted in body.get("preconditions", {}).items():
            if current["metadata"].get(field) != wanted:
                raise Refusal(409, "Conflict", f"the precondition on {field} is not met")
        del self.objects[key]
        self._record(key[0], current, None)
        return {"kind": "Status", "status": "Success"}

    def _selected(self, request: web.Request, obj: dict[str, Any], namespace: str) -> bool:
        if namespace and obj["metadata"].get("namespace") != namespace:
            return False
        labels = obj["metadata"].get("labels") or {}
        for term in filter(None, request.query.get("labelSelector", "").split(",")):
            key, equals, value = term.partition("=")
            if key not in labels or (equals and labels[key] != value.lstrip("=")):
                return False
        for term in filter(None, request.query.get("fieldSelector", "").split(",")):
            path, _, value = term.partition("=")
            found: Any = obj
            for part in path.split("."):
                found = (found or {}).get(part, "")
            if found != value.lstrip("="):
                return False
        return True

    def _list(self, request: web.Request, resource: str, namespace: str) -> dict[str, Any]:
        items = [
            obj
            for (kind, _, _), obj in sorted(self.objects.items())
            if kind == resource and self._selected(request, obj, namespace)
        ]
        start = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0)
        end = start + limit if limit else len(items)
        meta = {"resourceVersion": str(self.revision)}
        if end < len(items):
            meta["continue"] = str(end)
        return {"kind": "List", "metadata": meta, "items": items[start:end]}

    async def _watch(
        self, request: web.Request, resource: str, namespace: str
    ) -> web.StreamResponse:
        at = int(request.query["resourceVersion"])
        if at > self.revision:
            raise Refusal(504, "Timeout", f"Too large resource version: {at}")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        if at < self.floor:
            await response.prepare(request)
            gone = Refusal(410, "Expired", f"too old resource version: {at}").body()
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        await response.prepare(request)
        while True:
            changed = self._changed
            lines = b""
            for revision, kind, old, new in self.history:
                if revision > at and kind == resource:
                    lines += self._line(request, namespace, old, new, revision)
            at = self.revision
            bookmark = {"metadata": {"resourceVersion": str(at)}}
            lines += json.dumps({"type": "BOOKMARK", "object": bookmark}).encode() + b"\n"
            await response.write(lines)
            await changed.wait()

    def _line(
        self,
        request: web.Request,
        namespace: str,
        old: dict[str, Any] | None,
        new: dict[str, Any] | None,
        revision: int,
    ) -> bytes:
        """An object that stops matching the selectors is told as deleted."""
        before = old is not None and self._selected(request, old, namespace)
        after = new is not None and self._selected(request, new, namespace)
        if not before and not after:
            return b""
        event = "DELETED" if not after else "MODIFIED" if before else "ADDED"
        obj = copy.deepcopy(new or old or {})
        obj["metadata"]["resourceVersion"] = str(revision)
        return json.dumps({"type": event, "object": obj}).encode() + b"\n"

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        """Knows ``echo``, ``cat``, ``false``, ``hang`` and no other command."""
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        argv = request.query.getall("command")
        code = 0
        if argv[0] == "echo":
            await socket.send_bytes(b"\x01" + " ".join(argv[1:]).encode() + b"\n")
        elif argv[0] == "cat":
            async for message in socket:
                if message.type is not WSMsgType.BINARY or message.data == b"\xff\x00":
                    break
                await socket.send_bytes(b"\x01" + message.data[1:])
        elif argv[0] == "false":
            await socket.send_bytes(b"\x02" + b"it is false\n")
            code = 1
        elif argv[0] == "hang":
            await asyncio.Event().wait()
        else:
            code = -1
        await socket.send_bytes(b"\x03" + json.dumps(self._ended(code, argv[0])).encode())
        await socket.close()
        return socket

    @staticmethod
    def _ended(code: int, command: str) -> dict[str, Any]:
        if code == 0:
            return {"status": "Success"}
        if code < 0:
            return Refusal(500, "InternalError", f"{command}: no such command").body()
        causes = [{"reason": "ExitCode", "message": str(code)}]
        return {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": f"command terminated with exit code {code}",
            "details": {"causes": causes},
        }
