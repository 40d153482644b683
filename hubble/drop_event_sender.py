"""Tells Kubernetes of packets that were dropped, as events of the pods. Adapter.

A pod that is gone meanwhile has none. While the API server does not answer, events are counted as
failed and not kept: what happened is in the flows.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from hubble.drop_events import REASON, DropEvents, Note, Settings
from hubble.feed import Feed
from hubble.node import NodeSource
from kube import resources
from kube.client import HttpClient
from kube.port import ApiError
from telemetry.metrics import Family, family
from wire.hubble import flow_pb2

log = logging.getLogger("isthmus.hubble.drop-events")

_EVENTS: Final = resources.unstructured("", "v1", "events", "Event", namespaced=True)
_SAY_S: Final = 60.0
_CHUNK: Final = 1024


class DropEventSender:
    """Follows a node's ring."""

    def __init__(
        self,
        settings: Settings,
        source: NodeSource,
        connect: Callable[[], Awaitable[HttpClient]],
    ) -> None:
        self._source, self._connect = source, connect
        self._chosen = DropEvents(settings)
        self._woken = asyncio.Event()
        self._feed = Feed(source.ring, self._woken.set)
        self._said_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with await self._connect() as api:
                while True:
                    await self._woken.wait()
                    self._woken.clear()
                    while entries := self._feed.take(_CHUNK):
                        types = self._chosen.types
                        for entry in entries:
                            if entry.record[0] in types:
                                await self._look(api, self._source.decode(entry))
                        await asyncio.sleep(0)
        finally:
            self._feed.close()

    async def _look(self, api: HttpClient, flow: object) -> None:
        if not isinstance(flow, flow_pb2.Flow):
            return
        note = self._chosen.take(flow, time.monotonic())
        if note is None:
            return
        try:
            pod: Any = await api.get(resources.untyped(resources.PODS), note.pod, note.namespace)
            body = event_of(note, pod["metadata"]["uid"], self._source.node_name, datetime.now(UTC))
            await api.create(_EVENTS, body, note.namespace)
        except (ApiError, OSError, TimeoutError) as error:
            self._chosen.counts["failed"] += 1
            if time.monotonic() - self._said_s >= _SAY_S:
                self._said_s = time.monotonic()
                name = f"{note.namespace}/{note.pod}"
                log.warning('event=drop-event-failed pod=%s error="%s"', name, error)

    def families(self) -> list[Family]:
        """For the page of metrics."""
        return [
            family(
                "hubble_drop_events_total",
                "counter",
                "Drops that were worth an event of a pod, by what became of it",
                [({"outcome": name}, n) for name, n in sorted(self._chosen.counts.items())],
            )
        ]


def event_of(note: Note, uid: str, node: str, now: datetime) -> dict[str, Any]:
    """An event as the API server takes it."""
    at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    name = node.rpartition("/")[2]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{note.pod}.{int(now.timestamp() * 10**6):x}",
            "namespace": note.namespace,
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": note.pod,
            "namespace": note.namespace,
            "uid": uid,
        },
        "type": "Warning",
        "reason": REASON,
        "message": note.message,
        "source": {"component": "hubble", "host": name},
        "reportingComponent": "hubble",
        "reportingInstance": name,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
