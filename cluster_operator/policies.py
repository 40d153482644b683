"""Reads each policy as agents do and writes into its status whether it is valid. Adapter."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from cluster_operator import policy_status
from kube.informer import Informer
from kube.port import ApiError, Client, Resource
from kube.resources import CILIUM_POLICIES, CLUSTERWIDE_POLICIES
from policy.known import Mode
from policy.objects.read import Kind, Source, read
from policy.objects.settings import Settings
from reconcile.tasks import TaskGroup
from wire.k8s.meta import annotations_of
from wire.k8s.policy import PolicyObject

log = logging.getLogger("operator.policies")

RETRY_FIRST_S, RETRY_LAST_S = 0.2, 30.0

Name = tuple[Kind, str, str]
RESOURCES: dict[Kind, Resource[PolicyObject]] = {
    Kind.CILIUM: CILIUM_POLICIES,
    Kind.CLUSTERWIDE: CLUSTERWIDE_POLICIES,
}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Validator:
    """All policies that have a status. A change marks a policy; a marked one is judged anew."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        mode: Mode = Mode.DEFAULT,
        judges_nodes: bool = False,
        clock: Callable[[], str] = _now,
    ) -> None:
        """``judges_nodes``: agents enforce policies of nodes."""
        self._client = client
        self._judges_nodes = judges_nodes
        self._settings, self._mode = settings, mode
        self._clock = clock
        self._informers = {
            kind: Informer(client, resource, self._on_change(kind))
            for kind, resource in RESOURCES.items()
        }
        self._dirty: dict[Name, None] = {}
        self._wake = asyncio.Event()
        self._failures: dict[Name, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            for informer in self._informers.values():
                tasks.create_task(informer.run())
            while True:
                while self._dirty:
                    name = next(iter(self._dirty))
                    del self._dirty[name]
                    await self._attempt(name)
                self._wake.clear()
                await self._wake.wait()

    def _on_change(
        self, kind: Kind
    ) -> Callable[[PolicyObject | None, PolicyObject | None], Awaitable[None]]:
        async def on_change(old: PolicyObject | None, new: PolicyObject | None) -> None:
            if new is not None:
                self._mark((kind, new.metadata.namespace, new.metadata.name))

        return on_change

    def _mark(self, name: Name) -> None:
        self._dirty[name] = None
        self._wake.set()

    async def _attempt(self, name: Name) -> None:
        try:
            await self._judge(name)
            self._failures.pop(name, None)
        except (OSError, ValueError) as error:
            count = self._failures[name] = self._failures.get(name, 0) + 1
            log.warning('event=failed policy="%s %s/%s" error="%s"', *name, error)
            delay = min(RETRY_FIRST_S * 2 ** min(count - 1, 10), RETRY_LAST_S)
            asyncio.get_running_loop().call_later(delay, self._mark, name)

    async def _judge(self, name: Name) -> None:
        kind, *key = name
        known = self._informers[kind].store.get((key[0], key[1]))
        if known is None:
            return  # gone
        meta = known.metadata
        source = Source(
            kind, meta.namespace, meta.name, known.spec, known.specs, annotations_of(meta)
        )
        reading = read(source, self._settings)
        said = policy_status.conditions(
            known, reading, self._clock(), self._mode, self._judges_nodes
        )
        if said is None:
            return
        try:
            await self._client.patch_status(
                RESOURCES[kind], meta.name, {"conditions": said}, meta.namespace
            )
        except ApiError as error:
            if not error.not_found:  # deleted just now
                raise
            return
        log.info("event=judged kind=%s name=%s/%s valid=%s", kind, *key, reading.valid)
