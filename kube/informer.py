"""Keeps a mirror of one kind of objects and tells each change, in order. Adapter.

List at a revision, watch from it, watch again from the last revision seen when the connection
ends, and list again only when the server no longer knows that revision. The last known state stays
readable all the while. See ``kube.mirror`` for what becomes of bad objects.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kube.mirror import Change, ExpiredError, Key, Mirror
from kube.observed import OBSERVED
from kube.port import ApiError, Client, Resource
from wire.k8s.meta import K8sObject

T = TypeVar("T", bound=K8sObject)

log = logging.getLogger("kube.informer")

BACKOFF_FIRST_S = 0.05
BACKOFF_LAST_S = 10.0
# How long the server is to keep one watch: spread, so that not all clients come back at once.
WATCH_S = (240, 420)
WATCH_GRACE_S = 30
SHORT_S = 1


def backoff_s(failures: int, draw: float) -> float:
    """How long to wait after the n-th failure in a row; ``draw`` is random in [0, 1). Pure."""
    longest = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16))
    return longest * (0.5 + draw / 2)


@dataclass(slots=True)
class InformerStatus:
    """For health pages and metrics."""

    connected: bool = False
    lists: int = 0
    watches: int = 0
    events: int = 0
    failures: int = 0  # in a row
    error: str = ""  # the last one, empty while connected
    last_rejected: str = ""  # the last object that did not decode, and why


async def _nothing(old: object, new: object) -> None:
    return None


class Informer(Generic[T]):
    """The objects of a kind that match the selectors.

    ``on_change(old, new)`` is awaited for each change before the next one is read; an exception
    from it ends ``run``. ``synced`` is set once the first list has been told completely.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        on_change: Callable[[T | None, T | None], Awaitable[None]] = _nothing,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self.resource = resource
        self._on_change = on_change
        self._namespace = namespace
        self._selectors = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        self._draw = draw
        self._mirror: Mirror[T] = Mirror(resource.type, resource.kind)
        self._rejected = 0  # of these, those that were counted
        self.synced = asyncio.Event()
        self.status = InformerStatus()

    @property
    def store(self) -> Mapping[Key, T]:
        """The last known objects by (namespace, name). Not to be changed."""
        return self._mirror.store

    @property
    def rejected(self) -> int:
        """How many versions of objects did not decode so far."""
        return self._mirror.rejected

    @property
    def bad(self) -> Mapping[Key, str]:
        """Objects whose current version does not decode, and why."""
        return self._mirror.bad

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if not self._mirror.revision:
                    await self._list()
                await self._watch()
            except ExpiredError:
                log.info("kind=%s event=relist reason=expired", self.resource.plural)
            except (OSError, ValueError) as error:
                if isinstance(error, ApiError) and (error.expired or error.ahead):
                    self._mirror.revision = ""
                await self._rest(error)

    async def _rest(self, error: Exception) -> None:
        status = self.status
        status.failures += 1
        text = str(error)
        if status.failures == 1 or text != status.error:
            log.warning('kind=%s event=retry error="%s"', self.resource.plural, text)
        status.connected, status.error = False, text
        await asyncio.sleep(backoff_s(status.failures, self._draw()))

    def _healthy(self) -> None:
        self.status.connected, self.status.failures, self.status.error = True, 0, ""

    async def _list(self) -> None:
        items, revision = await self._client.list_raw(
            self.resource,
            self._namespace,
            label_selector=self._selectors["labelSelector"],
            field_selector=self._selectors["fieldSelector"],
        )
        self.status.lists += 1
        self._healthy()
        await self._tell(self._mirror.replace(items, revision))
        self.synced.set()

    async def _watch(self) -> None:
        seconds = WATCH_S[0] + int(self._draw() * (WATCH_S[1] - WATCH_S[0]))
        query = {k: v for k, v in self._selectors.items() if v}
        query |= {
            "resourceVersion": self._mirror.revision,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        path = self.resource.path(self._namespace)
        self.status.watches += 1
        started = asyncio.get_running_loop().time()
        async for lines in self._client.watch(path, query, seconds + WATCH_GRACE_S):
            self._healthy()
            for line in lines:
                changes = self._mirror.apply(line)
                self.status.events += 1
                await self._tell(changes)
        if asyncio.get_running_loop().time() - started < SHORT_S:
            # A server that ends each watch at once must not be asked in a tight loop.
            raise ConnectionResetError(f"watch {path}: ended after less than {SHORT_S} s")

    async def _tell(self, changes: Sequence[Change[T]]) -> None:
        self._report_rejected()
        rejected = self._mirror.rejected - self._rejected
        if rejected:
            self._rejected += rejected
            OBSERVED.rejected(self.resource.kind, rejected)
        for old, new in changes:
            await self._on_change(old, new)
            OBSERVED.told(self.resource.kind, old, new)

    def _report_rejected(self) -> None:
        if not self._mirror.bad:
            return
        key, reason = next(reversed(self._mirror.bad.items()))
        name = "/".join(part for part in key if part)
        text = f"{self.resource.kind} {name} does not decode: {reason}: correct the object"
        if text != self.status.last_rejected:
            self.status.last_rejected = text
            log.warning('event=rejected count=%d object="%s"', self._mirror.rejected, text)
