"""The client of ``kube.port`` over HTTP. Adapter.

Bodies stay bytes until msgspec decodes them into the one type that the resource names; the
official client's models, which cost a hundred times more, are not used.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec

from kube import execute, port_forward
from kube.observed import OBSERVED
from kube.port import ApiError, Body, ExecResult, PatchKind, Resource, UnreachableError
from kube.sockets import Sockets
from wire.k8s.meta import ListMeta, Status

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 30
PAGE = 500  # objects per page of a list, as kubectl asks


class AccessPort(Protocol):
    """What ``kube.config`` knows about the server."""

    server: str
    ssl: ssl.SSLContext | None
    server_name: str | None
    proxy: str | None

    async def authorization(self) -> str | None:
        """The Authorization header to send, if any."""
        ...


class RawList(msgspec.Struct):
    """A page of a list whose items are not decoded yet, so that each can fail alone."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] | None = None


class HttpClient:
    """``kube.port.Client`` over one pool of connections."""

    def __init__(self, access: AccessPort) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self._sockets = Sockets()

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def server(self) -> str:
        """The server's URL, for messages."""
        return self._access.server

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await self._sockets.closed()

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = self._access.ssl
            self._session = aiohttp.ClientSession(
                # Watches hold their connection: no limit, or they would starve the requests.
                connector=aiohttp.TCPConnector(
                    limit=0,
                    ssl=True if context is None else context,
                    socket_factory=self._sockets.make,
                ),
                read_bufsize=1 << 21,
                trust_env=True,  # HTTPS_PROXY and NO_PROXY, as kubectl
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _options(self, timeout: aiohttp.ClientTimeout) -> dict[str, Any]:
        headers = {"User-Agent": "isthmus"}
        authorization = await self._access.authorization()
        if authorization:
            headers["Authorization"] = authorization
        options: dict[str, Any] = {"headers": headers, "timeout": timeout}
        if self._access.server_name:
            options["server_hostname"] = self._access.server_name
        if self._access.proxy:
            options["proxy"] = self._access.proxy
        return options

    async def _open(
        self,
        verb: str,
        subject: str,
        method: str,
        path: str,
        query: Mapping[str, str] | Sequence[tuple[str, str]],
        body: bytes,
        content_type: str,
        accept: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        options = await self._options(timeout)
        options["headers"]["Accept"] = accept
        if body:
            options["headers"]["Content-Type"] = content_type
            options["data"] = body
        begun_s = time.monotonic()
        try:
            response = await self._pool().request(
                method, self._access.server + path, params=query, **options
            )
            took_s = time.monotonic() - begun_s
            OBSERVED.called(self._access.server, method, path, response.status, took_s)
            if response.status >= 400:
                try:
                    raise _refusal(verb, subject, response, await response.read())
                finally:
                    response.release()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(verb, subject, error) from error
        return response

    def _unreachable(self, verb: str, subject: str, error: BaseException) -> UnreachableError:
        text = str(error) or type(error).__name__
        return UnreachableError(f"cannot {verb} {subject}: {self._access.server}: {text}")

    async def _call(
        self,
        verb: str,
        subject: str,
        method: str,
        path: str,
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        response = await self._open(
            verb, subject, method, path, query, body, content_type, accept, timeout
        )
        try:
            async with response:
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(verb, subject, error) from error

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        return await self._call(
            method, path, method, path, query, body, content_type, accept, timeout_s
        )

    async def server_time(self) -> datetime | None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        accept = "application/json"
        response = await self._open(
            "get", "/version", "GET", "/version", (), b"", accept, accept, timeout
        )
        async with response:
            text = response.headers.get("Date", "")
        try:
            return parsedate_to_datetime(text).astimezone(UTC)
        except ValueError:
            return None

    async def get(self, resource: Resource[T], name: str, namespace: str = "") -> T:
        subject = _subject(resource, name, namespace)
        raw = await self._call("get", subject, "GET", resource.path(namespace, name))
        return _decoded(raw, resource, subject)

    async def list(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[T]:
        items, _ = await self.list_raw(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        )
        subject = _subject(resource, "", namespace)
        return [_decoded(item, resource, subject) for item in items]

    async def list_raw(
        self,
        resource: Resource[Any],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[Sequence[msgspec.Raw], str]:
        query = {"limit": str(PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        subject = _subject(resource, "", namespace)
        items: Sequence[msgspec.Raw] = []
        while True:
            raw = await self._call("list", subject, "GET", resource.path(namespace), query)
            page = _decoded_as(raw, RawList, subject)
            items = [*items, *(page.items or ())]
            if not page.metadata.continue_:
                return items, page.metadata.resource_version
            query["continue"] = page.metadata.continue_

    async def create(self, resource: Resource[T], body: Body, namespace: str = "") -> T:
        raw, name, space = _body(resource, body, namespace)
        subject = _subject(resource, name, space)
        answer = await self._call("create", subject, "POST", resource.path(space), (), raw)
        return _decoded(answer, resource, subject)

    async def update(
        self, resource: Resource[T], body: Body, *, namespace: str = "", subresource: str = ""
    ) -> T:
        raw, name, space = _body(resource, body, namespace)
        subject = _subject(resource, name, space)
        path = resource.path(space, name, subresource)
        answer = await self._call("update", subject, "PUT", path, (), raw)
        return _decoded(answer, resource, subject)

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        body: Body | Sequence[Any],
        namespace: str = "",
        *,
        kind: PatchKind = PatchKind.MERGE,
        subresource: str = "",
        field_manager: str = "isthmus",
    ) -> T:
        subject = _subject(resource, name, namespace)
        query = {"fieldManager": field_manager}
        if kind is PatchKind.APPLY:
            query["force"] = "true"
            raw, _, _ = _body(resource, body, namespace)
        else:
            raw = msgspec.json.encode(body)
        path = resource.path(namespace, name, subresource)
        answer = await self._call("patch", subject, "PATCH", path, query, raw, kind.value)
        return _decoded(answer, resource, subject)

    async def patch_status(
        self, resource: Resource[T], name: str, status: Mapping[str, Any], namespace: str = ""
    ) -> T:
        return await self.patch(resource, name, {"status": status}, namespace, subresource="status")

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        missing_ok: bool = True,
    ) -> None:
        pairs = (("uid", uid), ("resourceVersion", resource_version))
        conditions = {key: value for key, value in pairs if value}
        body = msgspec.json.encode({"preconditions": conditions}) if conditions else b""
        subject = _subject(resource, name, namespace)
        try:
            await self._call("delete", subject, "DELETE", resource.path(namespace, name), (), body)
        except ApiError as error:
            if not (missing_ok and error.not_found):
                raise

    async def watch(
        self, path: str, query: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator[Sequence[bytes]]:
        timeout = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=None
        )
        wanted = {"watch": "true", **query}
        rest = b""
        async for piece in self._stream("watch", path, wanted, timeout):
            *lines, rest = (rest + piece).split(b"\n")
            found = [line for line in lines if line]
            if found:
                yield found

    async def _stream(
        self, verb: str, path: str, query: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[bytes]:
        accept = "application/json"
        response = await self._open(verb, path, "GET", path, query, b"", "", accept, timeout)
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(verb, path, error) from error
        finally:
            response.close()  # the stream may stand in the middle of an answer

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        timeout: float = 30,
        *,
        stdin: bytes | None = None,
    ) -> ExecResult:
        subject = f"pod {namespace}/{pod}"
        options = await self._options(aiohttp.ClientTimeout(total=None))
        del options["timeout"]
        url = self._access.server + execute.path(namespace, pod, container, argv, stdin)
        try:
            async with asyncio.timeout(timeout):
                return await execute.run(self._pool(), url, options, subject, stdin)
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError("exec in", subject, error.status, "", error.message) from error
        except aiohttp.ClientError as error:
            raise self._unreachable("exec in", subject, error) from error
        except TimeoutError as error:
            raise TimeoutError(
                f"cannot exec in {subject}: {argv[0]} took more than {timeout} s"
            ) from error

    async def port_forward(
        self,
        namespace: str,
        pod: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> str:
        """Carry a connection to a port of a pod until either side ends.

        Returns what the node said went wrong; raises ``ApiError``, ``UnreachableError``.
        """
        subject = f"pod {namespace}/{pod}"
        options = await self._options(aiohttp.ClientTimeout(total=None))
        del options["timeout"]
        url = self._access.server + port_forward.path(namespace, pod, port)
        try:
            return await port_forward.carry(self._pool(), url, options, reader, writer)
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError("forward to", subject, error.status, "", error.message) from error
        except aiohttp.ClientError as error:
            raise self._unreachable("forward to", subject, error) from error

    async def logs(
        self, namespace: str, pod: str, container: str = "", *, tail_lines: int | None = None
    ) -> str:
        path, query = _log_path(namespace, pod, container, tail_lines)
        subject = f"logs of pod {namespace}/{pod}"
        raw = await self._call("get", subject, "GET", path, query, accept="*/*")
        return raw.decode(errors="replace")

    async def follow_logs(
        self, namespace: str, pod: str, container: str = "", *, tail_lines: int | None = None
    ) -> AsyncIterator[bytes]:
        path, query = _log_path(namespace, pod, container, tail_lines)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        async for piece in self._stream("follow", path, {**query, "follow": "true"}, timeout):
            yield piece


def _log_path(
    namespace: str, pod: str, container: str, tail_lines: int | None
) -> tuple[str, dict[str, str]]:
    query = {"container": container} if container else {}
    if tail_lines is not None:
        query["tailLines"] = str(tail_lines)
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query


def _subject(resource: Resource[Any], name: str, namespace: str) -> str:
    if not name:
        return f"{resource.plural} in {namespace}" if namespace else resource.plural
    return f"{resource.kind} {namespace}/{name}" if namespace else f"{resource.kind} {name}"


def _body(resource: Resource[Any], body: Any, namespace: str) -> tuple[bytes, str, str]:
    """The bytes with apiVersion and kind, the object's name, and its namespace."""
    plain = msgspec.to_builtins(body)
    metadata = plain.get("metadata") or {}
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, **plain}
    space = (namespace or metadata.get("namespace", "")) if resource.namespaced else ""
    return msgspec.json.encode(whole), metadata.get("name", ""), space


def _decoded(raw: bytes | msgspec.Raw, resource: Resource[T], subject: str) -> T:
    return _decoded_as(raw, resource.type, subject)


def _decoded_as(raw: bytes | msgspec.Raw, type_: type[T], subject: str) -> T:
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{subject}: the server's answer does not decode: {error}") from error


def _refusal(verb: str, subject: str, response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        status = Status(message=body[:200].decode(errors="replace").strip())
    reason = status.reason or response.reason or ""
    return ApiError(verb, subject, response.status, reason, status.message)
