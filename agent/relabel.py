"""Pods whose labels may have changed get the identity of their labels now. Adapter.

Level-triggered: only names of pods are queued; what they should be is looked up when their turn
comes. A lookup that fails is repeated.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.cni_types import PodName
from agent.endpoints import Endpoints
from model.identity import Identity
from reconcile import backoff

log = logging.getLogger("isthmus.agent.endpoints")


class Relabeller:
    """One task that follows pods' labels."""

    def __init__(
        self,
        endpoints: Endpoints,
        identity_of: Callable[[PodName], Awaitable[Identity | None]],
        draw: Callable[[], float],
    ) -> None:
        self._endpoints, self._identity_of, self._draw = endpoints, identity_of, draw
        self._dirty: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()

    def mark(self, namespace: str, pod: str) -> None:
        """A pod's labels, or with an empty name its namespace's, may have changed."""
        found = {
            (e.namespace, e.pod)
            for e in self._endpoints
            if e.pod and e.namespace == namespace and pod in ("", e.pod)
        }
        if found:
            self._dirty |= found
            self._wake.set()

    def mark_all(self) -> None:
        """Every pod, as after a restart: labels may have changed meanwhile."""
        self._dirty |= {(e.namespace, e.pod) for e in self._endpoints if e.pod}
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            todo, self._dirty = sorted(self._dirty), set()
            failed = False
            for namespace, pod in todo:
                try:
                    await self._one(namespace, pod)
                except OSError as error:
                    failed = True
                    self._dirty.add((namespace, pod))
                    log.warning('event=relabel-failed pod=%s/%s error="%s"', namespace, pod, error)
            failures = failures + 1 if failed else 0
            if failed:
                await asyncio.sleep(backoff.delay_s(failures, self._draw()))
                self._wake.set()

    async def _one(self, namespace: str, pod: str) -> None:
        for endpoint in self._endpoints.of_pod(namespace, pod):
            identity = await self._identity_of(PodName(namespace, pod, endpoint.pod_uid))
            if identity is not None:
                self._endpoints.relabel(endpoint.id, identity)
