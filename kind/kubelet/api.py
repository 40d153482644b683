"""The kubelet's requests to its API server: get, create, patch, delete, list and watch. Adapter.

Plain ``aiohttp`` and not the room ``kube``: a kubelet must start in a fraction of a second, four of
them at once on two processors, and the Kubernetes client alone takes longer than that to import.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

log = logging.getLogger(__name__)

Json = dict[str, Any]

REQUEST_TIMEOUT_S = 15.0
# A connection that is refused or lost on the way is tried again soon: a pod may come up before the
# address of its API server is served.
CONNECT_TIMEOUT_S = 1.0
# A watch that says nothing for so long is opened again: half-open connections must not last.
WATCH_TIMEOUT_S = 300
RETRY_FIRST_S, RETRY_CAP_S = 0.05, 2.0


class ApiError(OSError):
    """The API server refused, or could not be reached (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a watched collection; SYNCED ends a listing."""

    kind: str  # ADDED, MODIFIED, DELETED, SYNCED
    object: Json


class Api:
    """One API server, with the node's own credentials."""

    def __init__(self, url: str, ca_file: Path, token: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Api":
        # No limit on connections: each watch holds one.
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def _request(self, method: str, path: str, **options: Any) -> Any:
        assert self._session is not None, "used outside its context"
        return self._session.request(method, self._url + path, **options)

    async def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """One request. Raises ApiError."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            async with self._request(
                method, path, data=data, headers=headers, timeout=timeout
            ) as answer:
                text = await answer.read()
                if answer.status >= 400:
                    raise ApiError(answer.status, _reason(text))
                result: Json = json.loads(text)
                return result
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(
                0, f"{method} {self._url}{path}: {str(error) or type(error).__name__}"
            ) from error

    async def merge(self, path: str, body: Json) -> Json:
        """Apply a JSON merge patch."""
        return await self.call("PATCH", path, body, "application/merge-patch+json")

    async def follow(self, path: str, query: str = "") -> AsyncIterator[Change]:
        """List, then watch, for ever; lists again whenever the watch cannot be resumed.

        Each listing comes as ADDED for every object and one SYNCED, whose object holds the keys
        (``namespace/name``) that exist, so that the reader can drop the others.
        """
        delay_s = RETRY_FIRST_S
        while True:
            try:
                listing = await self.call("GET", f"{path}?{query}")
                items = listing.get("items") or []
                for item in items:
                    yield Change("ADDED", item)
                yield Change("SYNCED", {"keys": {key_of(item) for item in items}})
                delay_s = RETRY_FIRST_S
                version = listing["metadata"]["resourceVersion"]
                async for change in self._watch(path, query, version):
                    yield change
            except ApiError as error:
                log.warning("watch interrupted path=%s error=%s", path, error)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_CAP_S)

    async def _watch(self, path: str, query: str, version: str) -> AsyncIterator[Change]:
        """Yield changes after ``version`` until that version is too old. Raises ApiError."""
        while True:
            target = (
                f"{path}?{query}&watch=true&resourceVersion={version}"
                f"&allowWatchBookmarks=true&timeoutSeconds={WATCH_TIMEOUT_S}"
            )
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=WATCH_TIMEOUT_S + 30
            )
            try:
                async with self._request("GET", target, timeout=timeout) as answer:
                    if answer.status == 410:
                        return
                    if answer.status >= 400:
                        raise ApiError(answer.status, _reason(await answer.read()))
                    async for line in _lines(answer.content):
                        event = json.loads(line)
                        item = event["object"]
                        if event["type"] == "ERROR":
                            if item.get("code") == 410:
                                return
                            raise ApiError(item.get("code", 0), item.get("message", ""))
                        version = item["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield Change(event["type"], item)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ApiError(0, f"watch {path}: {str(error) or type(error).__name__}") from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # readline() has a limit that a large ConfigMap exceeds.
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _reason(text: bytes) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except ValueError:
        return text.decode(errors="replace")[:500]


def key_of(item: Json) -> str:
    """``namespace/name`` of an object."""
    metadata = item["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
