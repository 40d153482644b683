"""From the API server's watches to the publisher's queue. Adapter; the rules are in ``publish``.

Nothing waits between an event and its rows: a change is handed on in the same turn of the loop in
which it was read.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from clustermesh_apiserver.exports import ExportPublication
from clustermesh_apiserver.publish import Publication, Rows
from kube.informer import Informer
from kube.port import ApiError, Client, Resource
from kube.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    SERVICE_EXPORTS,
    SERVICES,
)
from reconcile.tasks import TaskGroup
from wire.etcd import keys
from wire.k8s.endpointslice import SERVICE_NAME_LABEL
from wire.k8s.meta import K8sObject
from wire.k8s.service import Service

T = TypeVar("T", bound=K8sObject)

log = logging.getLogger("clustermesh.inputs")


class Outbox(Protocol):
    """Where rows go: ``kvstore.publisher``."""

    def put(self, rows: Rows) -> None:
        """Queue rows; the last one for a key counts."""
        ...

    def complete(self, resource: str) -> None:
        """All rows of a type have been queued: its canary may follow them."""
        ...


class Inputs:
    """The watches whose objects are published."""

    def __init__(
        self,
        client: Client,
        publication: Publication,
        outbox: Outbox,
        exports: ExportPublication | None = None,
    ) -> None:
        """``exports``: what becomes of ServiceExports; ``None``: they are not looked at."""
        self._exports = exports
        self._publication = publication
        self._outbox = outbox
        self._client = client
        self.nodes = self._informer(CILIUM_NODES, publication.node)
        self.identities = self._informer(CILIUM_IDENTITIES, publication.identity)
        self.endpoints = self._informer(CILIUM_ENDPOINTS, publication.endpoint)
        self.services = self._informer(SERVICES, self._service)
        self.slices = self._informer(ENDPOINT_SLICES, publication.slice, SERVICE_NAME_LABEL)
        self.exports = self._informer(SERVICE_EXPORTS, exports.export) if exports else None

    def all(self) -> tuple[Informer[Any], ...]:
        """For health and metrics."""
        always = self.nodes, self.identities, self.endpoints, self.services, self.slices
        return (*always, self.exports) if self.exports else always

    def kinds(self) -> tuple[tuple[str, tuple[Informer[Any], ...]], ...]:
        """Each published type, with the watches that must have listed before it is complete."""
        always: tuple[tuple[str, tuple[Informer[Any], ...]], ...] = (
            (keys.NODES, (self.nodes,)),
            (keys.IDENTITIES, (self.identities,)),
            (keys.IP, (self.endpoints,)),
            (keys.SERVICES, (self.services, self.slices)),
        )
        if self.exports is None:
            return always
        return (*always, (keys.SERVICE_EXPORTS, (self.exports, self.services)))

    def _service(self, old: Service | None, new: Service | None) -> Rows:
        rows = self._publication.service(old, new)
        return rows | self._exports.service(old, new) if self._exports else rows

    def _informer(
        self,
        resource: Resource[T],
        decide: Callable[[T | None, T | None], Rows],
        label_selector: str = "",
    ) -> Informer[T]:
        async def on_change(old: T | None, new: T | None) -> None:
            before, bad = self._publication.rejected, len(self._publication.problems)
            rows = decide(old, new)
            if self._publication.rejected != before:
                self._report()
            # An object that is not bad any more may leave rows that were spared for it.
            if rows or len(self._publication.problems) < bad:
                self._outbox.put(rows)

        return Informer(self._client, resource, on_change, label_selector=label_selector)

    def _report(self) -> None:
        """Say the latest problem; older ones stay in ``problems`` and the metric."""
        for sentence in next(reversed(self._publication.problems.values()), ()):
            log.warning('event=rejected count=%d "%s"', self._publication.rejected, sentence)

    def unusable(self) -> Iterator[tuple[str, str, str]]:
        """Kind, namespace and name of every object that cannot be used now."""
        yield from self._publication.problems
        for informer in self.all():
            for namespace, name in informer.bad:
                yield informer.resource.kind, namespace, name

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            for informer in self.all():
                tasks.create_task(informer.run())
            for kind, informers in self.kinds():
                tasks.create_task(self._complete(kind, informers))

    async def _complete(self, kind: str, informers: tuple[Informer[Any], ...]) -> None:
        if kind == keys.SERVICE_EXPORTS and not await self._exports_served():
            # Nobody is kept waiting for a kind that this cluster does not have.
            log.warning('event=absent kind=%s why="no definition of ServiceExport"', kind)
            self._outbox.complete(kind)
        for informer in informers:
            await informer.synced.wait()
        if kind == keys.SERVICES:
            self._outbox.put(self._publication.complete_services())
        if kind == keys.SERVICE_EXPORTS and self._exports:
            self._outbox.put(self._exports.complete())
        self._outbox.complete(kind)
        log.info("event=listed kind=%s", kind)

    async def _exports_served(self) -> bool:
        try:
            await self._client.list_raw(SERVICE_EXPORTS)
        except ApiError as error:
            return not error.not_found
        except OSError:  # the informer goes on trying
            return True
        return True
