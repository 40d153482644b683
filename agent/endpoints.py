"""Pods of this node: attach, detach, restore, relabel. Adapter.

The name of the host device and the file on disk are functions of the attachment, and every step can
be repeated: a request that died half-way leaves nothing that its repetition, or a DEL, would not
replace or remove. The file is written before the datapath is told, so what carries packets is known
after any kill.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.cni_types import (
    CODE_ENVIRONMENT,
    CODE_FAILED,
    CODE_TRY_AGAIN,
    CODE_UNHEALTHY,
    CniError,
    CniRequest,
    PodName,
    host_interface,
    pod_of,
)
from agent.endpoint_store import Endpoint, EndpointStore
from agent.identities import INIT
from agent.ipam import PoolExhaustedError, Pools
from datapath.links import EndpointLink
from model.address import Address
from model.endpoint import EndpointId, EndpointState, LocalEndpoint
from model.identity import Identity
from telemetry.metrics import Histogram

log = logging.getLogger("isthmus.agent.endpoints")

_LAST_ID = 65535
_TOTAL, _SUCCESS, _FAILURE = "total", "success", "failure"
_IDENTITY, _PROGRAMS, _ROWS = "prepareBuild", "bpfLoadProg", "mapSync"  # parts of the total


class Links(Protocol):
    """Device pairs and the programs on them."""

    async def create(
        self, netns: str, container_interface: str, host: str, addresses: tuple[Address, ...]
    ) -> EndpointLink:
        """Make the pair, and let its packets go through our program."""
        ...

    async def delete(self, host: str, addresses: tuple[Address, ...] = ()) -> None:
        """Remove the pair and the flows of its addresses; no error when it is gone."""
        ...

    async def exists(self, host: str) -> bool:
        """Whether the pair is there."""
        ...


class Wanted(Protocol):
    """The tables that endpoints are rows of."""

    def endpoint_changed(self, old: Endpoint | None, new: Endpoint | None) -> None:
        """Rows of an endpoint may differ now."""
        ...

    async def written(self, endpoint: Endpoint) -> None:
        """Wait until its rows are in the kernel. Raises ``OSError``."""
        ...

    async def removed(self, endpoint: Endpoint) -> None:
        """Wait until nothing in the kernel leads to it any more."""
        ...


@dataclass(slots=True)
class EndpointCounters:
    """For metrics."""

    created: int = 0
    deleted: int = 0
    failed: int = 0
    restored: int = 0
    relabelled: int = 0
    last_create_s: float = 0.0
    times: Histogram = field(default_factory=lambda: Histogram(("scope", "status")))

    def __post_init__(self) -> None:
        # Parts are not: dashboards take averages over quantiles, and of nothing there is none.
        for status in (_SUCCESS, _FAILURE):
            self.times.declare(_TOTAL, status)

    @contextmanager
    def timed(self, scope: str) -> Iterator[None]:
        """A part of the work of making an endpoint."""
        started, status = time.monotonic(), _FAILURE
        try:
            yield
            status = _SUCCESS
        finally:
            self.times.observe(time.monotonic() - started, scope, status)


class Endpoints:
    """All endpoints of this node; the table of those the datapath should have."""

    def __init__(
        self,
        pools: Pools,
        store: EndpointStore,
        links: Links,
        wanted: Wanted,
        identity_of: Callable[[PodName], Awaitable[Identity | None]],
        draw: Callable[[], float],
    ) -> None:
        self._pools, self._store, self._links, self._wanted = pools, store, links, wanted
        self._identity_of, self._draw = identity_of, draw
        self._by_id: dict[EndpointId, Endpoint] = {}
        self._by_attachment: dict[tuple[str, str], EndpointId] = {}
        self._busy: set[tuple[str, str]] = set()
        self.counters = EndpointCounters()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._by_id.values())

    def get(self, number: EndpointId, /) -> LocalEndpoint | None:
        """The row the datapath should have."""
        found = self._by_id.get(number)
        return found.local if found else None

    def items(self) -> Iterator[tuple[EndpointId, LocalEndpoint]]:
        """All rows the datapath should have."""
        return ((e.id, e.local) for e in self._by_id.values())

    def endpoint(self, number: EndpointId) -> Endpoint | None:
        """One endpoint."""
        return self._by_id.get(number)

    def attached(self, container_id: str, interface: str) -> Endpoint | None:
        """The endpoint of an attachment."""
        number = self._by_attachment.get((container_id, interface))
        return None if number is None else self._by_id.get(number)

    def of_pod(self, namespace: str, pod: str) -> list[Endpoint]:
        """Endpoints of a pod; two for a moment while it is replaced by one of the same name."""
        return [e for e in self._by_id.values() if (e.namespace, e.pod) == (namespace, pod)]

    async def restore(self) -> None:
        """Take over what a former life of this agent left. Before anything is allocated."""
        for saved in self._store.load():
            if not await self._links.exists(saved.local.interface):
                log.info("event=endpoint-gone id=%d pod=%s", saved.id, saved.owner)
                self._store.remove(saved.id)
                continue
            for address in saved.local.addresses:
                if not self._pools.take(address, saved.owner):
                    log.warning(
                        "event=address-outside id=%d pod=%s address=%s: its pod CIDR has changed, "
                        "create the pod anew",
                        saved.id,
                        saved.owner,
                        address,
                    )
            self._enter(replace(saved, state=EndpointState.READY))
            self.counters.restored += 1

    async def add(self, request: CniRequest) -> Endpoint:
        """Attach a pod. Repeatable. Raises ``CniError``."""
        attachment = (request.container_id, request.ifname)
        if not all((*attachment, request.netns)):
            raise CniError(
                CODE_ENVIRONMENT, "CNI_CONTAINERID, CNI_IFNAME and CNI_NETNS must be set for ADD"
            )
        with self._alone(attachment):
            known = self.attached(*attachment)
            if known is not None:
                if known.netns == request.netns and await self._links.exists(known.local.interface):
                    await self._wanted.written(known)
                    return known
                await self._remove(known)
            started = time.monotonic()
            endpoint = None
            try:
                with self.counters.timed(_TOTAL):
                    endpoint = await self._create(request, pod_of(request))
            finally:
                self.counters.failed += endpoint is None
            self.counters.created += 1
            self.counters.last_create_s = time.monotonic() - started
            log.info(
                "event=endpoint-created id=%d pod=%s address=%s identity=%d ms=%.1f",
                endpoint.id,
                endpoint.owner,
                ",".join(map(str, endpoint.local.addresses)),
                endpoint.identity.id,
                self.counters.last_create_s * 1000,
            )
            return endpoint

    async def _create(self, request: CniRequest, pod: PodName) -> Endpoint:
        owner = f"{pod.namespace}/{pod.name}" if pod.name else request.container_id
        host = host_interface(request.container_id, request.ifname)
        try:
            addresses = self._pools.allocate(owner, self._draw)
        except PoolExhaustedError as error:
            raise CniError(CODE_TRY_AGAIN, str(error)) from error
        # What was done is undone on every way out but the last, cancellation too.
        async with AsyncExitStack() as undo:
            undo.callback(self._pools.release, addresses)
            try:
                with self.counters.timed(_IDENTITY):
                    identity = await self._identity_of(pod) if pod.name else None
                with self.counters.timed(_PROGRAMS):
                    link = await self._links.create(request.netns, request.ifname, host, addresses)
                undo.push_async_callback(self._delete_link, host)
                endpoint = self._build(request, pod, host, addresses, link, identity or INIT)
                undo.callback(self._leave, endpoint)
                with self.counters.timed(_ROWS):
                    self._store.write(endpoint)
                    self._enter(endpoint)
                    await self._wanted.written(endpoint)
            except OSError as error:
                raise CniError(CODE_FAILED, f"pod {owner}: {error}") from error
            undo.pop_all()
            return endpoint

    async def _delete_link(self, host: str) -> None:
        """The DEL that follows a failed ADD tries again what fails here."""
        with suppress(OSError):
            await self._links.delete(host)

    def _build(
        self,
        request: CniRequest,
        pod: PodName,
        host: str,
        addresses: tuple[Address, ...],
        link: EndpointLink,
        identity: Identity,
    ) -> Endpoint:
        local = LocalEndpoint(
            id=self._free_id(),
            identity=identity.id,
            ifindex=link.ifindex,
            interface=host,
            mac=link.mac,
            host_mac=link.host_mac,
            addresses=addresses,
        )
        return Endpoint(
            local=local,
            identity=identity,
            container_id=request.container_id,
            container_interface=request.ifname,
            netns=request.netns,
            namespace=pod.namespace,
            pod=pod.name,
            pod_uid=pod.uid,
        )

    async def delete(self, container_id: str, interface: str) -> None:
        """Detach; no error when there is nothing, for a failed ADD is followed by a DEL."""
        attachment = (container_id, interface)
        with self._alone(attachment):
            known = self.attached(*attachment)
            try:
                if known is None:
                    await self._links.delete(host_interface(*attachment))
                else:
                    await self._remove(known)
            except OSError as error:
                raise CniError(CODE_FAILED, f"container {container_id}: {error}") from error

    async def _remove(self, endpoint: Endpoint) -> None:
        await self._links.delete(endpoint.local.interface, endpoint.local.addresses)
        self._leave(endpoint)
        await self._wanted.removed(endpoint)
        self._pools.release(endpoint.local.addresses)
        self.counters.deleted += 1
        log.info("event=endpoint-deleted id=%d pod=%s", endpoint.id, endpoint.owner)

    async def check(self, request: CniRequest) -> Endpoint:
        """Whether an attachment is as ADD left it. Raises ``CniError``."""
        known = self.attached(request.container_id, request.ifname)
        if known is None:
            raise CniError(
                CODE_UNHEALTHY,
                f"container {request.container_id} has no endpoint for {request.ifname} on this "
                "node: create the pod anew",
            )
        if not await self._links.exists(known.local.interface):
            raise CniError(
                CODE_UNHEALTHY,
                f"pod {known.owner}: device {known.local.interface} is gone: create the pod anew",
            )
        try:
            await self._wanted.written(known)
        except OSError as error:
            raise CniError(CODE_UNHEALTHY, f"pod {known.owner}: {error}") from error
        return known

    def relabel(self, number: EndpointId, identity: Identity) -> None:
        """Another identity for a pod whose labels have changed."""
        known = self._by_id.get(number)
        if known is None or known.identity == identity:
            return
        changed = known.with_identity(identity)
        self._store.write(changed)
        self._by_id[number] = changed
        self._wanted.endpoint_changed(known, changed)
        self.counters.relabelled += 1
        log.info(
            "event=identity-changed id=%d pod=%s from=%d to=%d",
            number,
            known.owner,
            known.identity.id,
            identity.id,
        )

    def _enter(self, endpoint: Endpoint) -> None:
        self._by_id[endpoint.id] = endpoint
        self._by_attachment[endpoint.attachment] = endpoint.id
        self._wanted.endpoint_changed(None, endpoint)

    def _leave(self, endpoint: Endpoint) -> None:
        known = self._by_id.pop(endpoint.id, None)
        self._by_attachment.pop(endpoint.attachment, None)
        self._wanted.endpoint_changed(known or endpoint, None)
        self._store.remove(endpoint.id)

    def _free_id(self) -> EndpointId:
        start = int(self._draw() * _LAST_ID)
        for step in range(_LAST_ID):
            number = EndpointId(1 + (start + step) % _LAST_ID)
            if number not in self._by_id:
                return number
        raise CniError(CODE_TRY_AGAIN, f"this node has {_LAST_ID} endpoints: use another node")

    def _alone(self, attachment: tuple[str, str]) -> "_Alone":
        return _Alone(self._busy, attachment)


class _Alone:
    """One request at a time for one attachment; a second one is told to come again."""

    def __init__(self, busy: set[tuple[str, str]], attachment: tuple[str, str]) -> None:
        self._busy, self._attachment = busy, attachment

    def __enter__(self) -> None:
        if self._attachment in self._busy:
            raise CniError(
                CODE_TRY_AGAIN,
                f"container {self._attachment[0]}: another request is under way: try again",
            )
        self._busy.add(self._attachment)

    def __exit__(self, *_: object) -> None:
        self._busy.discard(self._attachment)
