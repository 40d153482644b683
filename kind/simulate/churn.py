"""What happens in the simulated clusters, one change after another. Pure; randomness is given.

Of a hundred changes 40 are new pods, 36 pods that end, 8 pods that get another identity, 6 new
labels of an identity, 6 services whose backends change, 4 nodes that come or go. What has nothing
to end becomes a new pod.
"""

import random
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum

from datapath import encoding
from kind.simulate import shape as layout
from kind.simulate.population import Cluster, Population, Row
from model.address import pack

POD_ADDED, POD_REMOVED, POD_RELABELLED = "pod added", "pod removed", "pod relabelled"
LABELS, SERVICE, NODE = "identity", "service", "node"
MIX = {POD_ADDED: 40, POD_REMOVED: 36, POD_RELABELLED: 8, LABELS: 6, SERVICE: 6, NODE: 4}
SERVICES_ONLY = {SERVICE: 1}


class Table(Enum):
    """Where an effect shows in the kernel."""

    HOSTS = "hosts"
    PREFIXES = "prefixes"
    SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a row of the kernel is when a change has arrived.

    ``wanted``: its bytes, or ``None`` when it is gone; for a service how many backends it has.
    """

    table: Table
    key: bytes | int
    wanted: bytes | int | None


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one cluster."""

    kind: str
    row: Row
    effect: Effect | None  # None: labels alone do not reach the kernel


class Churn:
    """Draws changes; each is applied to the population as it is drawn."""

    def __init__(
        self, population: Population, draw: random.Random, mix: dict[str, int] | None = None
    ) -> None:
        self._all = population
        self._draw = draw
        mix = dict(mix or MIX)
        if not population.shape.services:
            mix.pop(SERVICE, None)
        self._kinds, self._weights = list(mix), list(mix.values())

    def next(self, busy: Container[tuple[Table, bytes | int]]) -> Change:
        """The next change; services whose last change is still under way (``busy``) are left."""
        cluster = self._draw.choice(self._all.clusters)
        if not cluster.touched:
            cluster.touched = True
            cluster.pods = self._all.mortal_pods()
        kind = self._draw.choices(self._kinds, self._weights)[0]
        if kind == SERVICE:
            service = self._draw.randrange(self._all.shape.services)
            if (Table.SERVICES, service) not in busy:
                return self._service(cluster, service)
        elif kind == NODE:
            return self._node(cluster)
        elif kind == LABELS:
            return self._labels(cluster)
        elif kind in (POD_REMOVED, POD_RELABELLED) and cluster.pods:
            return self._ended(cluster) if kind == POD_REMOVED else self._relabelled(cluster)
        return self._added(cluster)

    def _identity(self) -> int:
        return self._draw.randrange(self._all.shape.identities)

    def _pod(self, cluster: Cluster, kind: str, pod: tuple[int, int]) -> Change:
        row = self._all.pod(cluster.number, pod, self._identity())
        return Change(kind, row, self._host(cluster, pod))

    def _host(self, cluster: Cluster, pod: tuple[int, int]) -> Effect:
        key = pack(self._all.shape.pod_ip(cluster.number, *pod))
        return Effect(Table.HOSTS, key, self._all.truth.hosts.get(key))

    def _added(self, cluster: Cluster) -> Change:
        nodes = [node for node, free in enumerate(cluster.free) if free]
        if not nodes:
            return self._ended(cluster)
        node = self._draw.choice(nodes)
        free = cluster.free[node]
        # An address that has just been given back comes last, as allocators do.
        pod = (node, free.pop(0))
        cluster.pods.append(pod)
        return self._pod(cluster, POD_ADDED, pod)

    def _ended(self, cluster: Cluster) -> Change:
        pod = cluster.pods.pop(self._draw.randrange(len(cluster.pods)))
        cluster.free[pod[0]].append(pod[1])
        row = self._all.no_pod(cluster.number, pod)
        return Change(POD_REMOVED, row, self._host(cluster, pod))

    def _relabelled(self, cluster: Cluster) -> Change:
        pod = self._draw.choice(cluster.pods)
        return self._pod(cluster, POD_RELABELLED, pod)

    def _labels(self, cluster: Cluster) -> Change:
        cluster.labels_changed += 1
        row = self._all.identity(cluster.number, self._identity(), cluster.labels_changed)
        return Change(LABELS, row, None)

    def _service(self, cluster: Cluster, service: int) -> Change:
        """One backend more, or that one less."""
        shape = self._all.shape
        known = self._all.truth.backends[service]
        if service in cluster.more_backends:
            known.discard(shape.pod_ip(cluster.number, *cluster.more_backends.pop(service)))
        else:
            index = (service * shape.backends + shape.backends) % shape.endpoints
            cluster.more_backends[service] = self._all.first_pod(index)
        row = self._all.service(cluster, service)
        return Change(SERVICE, row, Effect(Table.SERVICES, service, len(known)))

    def _node(self, cluster: Cluster) -> Change:
        shape = self._all.shape
        number = shape.nodes + self._draw.randrange(layout.SPARE_NODES)
        key = encoding.ipcache_prefix_key(shape.pod_prefix(cluster.number, number))
        if number in cluster.spare_nodes:
            cluster.spare_nodes.discard(number)
            row = self._all.no_node(cluster.number, number)
        else:
            cluster.spare_nodes.add(number)
            row = self._all.node(cluster.number, number)
        return Change(NODE, row, Effect(Table.PREFIXES, key, self._all.truth.prefixes.get(key)))
