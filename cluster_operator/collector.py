"""Carries out what ``cluster_operator.garbage`` decides, round after round. Adapter.

Each round reads everything anew: rounds are rare, and a memory of the whole cluster between them
would cost more than it saves. A round that cannot read everything (an object that does not decode,
a server that is away) decides nothing.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster_operator.garbage import (
    Delete,
    Mark,
    format_time,
    orphaned_endpoints,
    orphaned_nodes,
    plan_identities,
    unmanaged_pods,
    used_identities,
)
from kube.port import ApiError, Client, Resource
from kube.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, CILIUM_NODES, NODES, PODS
from kvstore.observed import OBSERVED
from wire.k8s.cilium_identity import GC_MARK

log = logging.getLogger("operator.garbage")


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


class Collector:
    """Garbage collection of identities, endpoints and nodes."""

    def __init__(
        self,
        client: Client,
        keep_identity: timedelta,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._keep_identity = keep_identity
        self._clock = clock
        self.deleted: Counter[str] = Counter()  # by kind
        self.runs: Counter[tuple[str, str]] = Counter()  # rounds, by name and outcome
        self.latest_s: dict[tuple[str, str], float] = {}  # how long the latest of these took
        self.identities_alive = 0  # after the latest round
        self.unmanaged_pods = 0  # that run in the pod network, and no agent has
        self._orphans: set[str] = set()  # uids of nodes without a Node in the round before

    async def every(
        self, name: str, seconds: float, collect: Callable[[], Awaitable[None]]
    ) -> None:
        """Run a round now and then each ``seconds`` until cancelled; a failed one is repeated."""
        now_s = asyncio.get_running_loop().time
        while True:
            begun_s, outcome = now_s(), "success"
            try:
                await collect()
            except (OSError, ValueError) as error:
                outcome = "fail"
                log.warning('round=%s event=failed error="%s"', name, error)
            self.runs[name, outcome] += 1
            self.latest_s[name, outcome] = now_s() - begun_s
            OBSERVED.ran(f"{name}-round", outcome == "success")
            await asyncio.sleep(seconds)

    async def identities(self) -> None:
        """One round over the identities."""
        # Identities first: one that is made and used after this list is not judged by it.
        identities = await self._client.list(CILIUM_IDENTITIES)
        used = used_identities(await self._client.list(CILIUM_ENDPOINTS))
        plan = plan_identities(identities, used, self._clock(), self._keep_identity)
        for step in plan:
            if isinstance(step, Mark):
                await self._mark(step)
        before = self.deleted[CILIUM_IDENTITIES.kind]
        await self._delete(CILIUM_IDENTITIES, [s for s in plan if isinstance(s, Delete)])
        gone = self.deleted[CILIUM_IDENTITIES.kind] - before
        self.identities_alive = len(identities) - gone

    async def _mark(self, mark: Mark) -> None:
        value = format_time(mark.at) if mark.at else None
        change = {"metadata": {"annotations": {GC_MARK: value}}}
        try:
            await self._client.patch(CILIUM_IDENTITIES, mark.name, change)
        except ApiError as error:
            if not error.not_found:
                raise

    async def endpoints(self) -> None:
        """One round over the CiliumEndpoints."""
        endpoints = await self._client.list(CILIUM_ENDPOINTS)
        # Pods are listed after the endpoints: an endpoint is made after its pod.
        pods = await self._client.list(PODS)
        self.unmanaged_pods = len(unmanaged_pods(endpoints, pods))
        await self._delete(CILIUM_ENDPOINTS, orphaned_endpoints(endpoints, pods))

    async def nodes(self) -> None:
        """One round over the CiliumNodes: one must be an orphan in two rounds to be deleted."""
        ciliumnodes = await self._client.list(CILIUM_NODES)
        orphans = orphaned_nodes(ciliumnodes, await self._client.list(NODES))
        again = [o for o in orphans if o.uid in self._orphans]
        self._orphans = {o.uid for o in orphans}
        await self._delete(CILIUM_NODES, again)

    async def _delete(self, resource: Resource[Any], steps: Sequence[Delete]) -> None:
        for step in steps:
            try:
                await self._client.delete(
                    resource,
                    step.name,
                    step.namespace,
                    uid=step.uid,
                    resource_version=step.resource_version,
                )
            except ApiError as error:
                if not error.conflict:
                    raise
                continue  # somebody has just changed it: judged again in the next round
            self.deleted[resource.kind] += 1
            log.info("event=deleted kind=%s name=%s", resource.kind, step.name)
