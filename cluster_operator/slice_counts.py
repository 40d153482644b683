"""What the copies of other clusters' slices cost, counted as Kubernetes counts its own. Pure."""

import json
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model.service import ServiceName
from telemetry.metrics import Counter, Family, Histogram, family
from wire.k8s.endpointslice import EndpointSlice
from wire.k8s.meta import labels_of
from wire.k8s.multicluster import CLUSTER_LABEL

# Of endpoints: doubling, up to more than one service has.
ENDPOINTS = tuple(float(2**power) for power in range(1, 16))
# Of slices: these are a hundredth of it.
SLICES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
TOPOLOGY = "Disabled"  # slices of other clusters carry no hints


@dataclass(frozen=True, slots=True)
class Desired:
    """What one service should have."""

    endpoints: int
    slices: int  # if each were filled before the next is begun


@dataclass(slots=True)
class SliceCounts:
    """Since the start of the process; ``desired`` is as it stands."""

    added: Histogram = field(default_factory=lambda: Histogram((), ENDPOINTS))
    removed: Histogram = field(default_factory=lambda: Histogram((), ENDPOINTS))
    changed: Histogram = field(default_factory=lambda: Histogram(("topology",), SLICES))
    changes: Counter = field(default_factory=lambda: Counter(("operation",)))
    syncs: Counter = field(default_factory=lambda: Counter(("result",)))
    desired: dict[ServiceName, Desired] = field(default_factory=dict)

    def wants(self, name: ServiceName, bodies: Iterable[Mapping[str, Any]], size: int) -> None:
        """What a service should have from now on; ``size``: endpoints of a slice, at most."""
        found = desired(bodies, size)
        if found.slices:
            self.desired[name] = found
        else:
            self.desired.pop(name, None)

    def synced(self, before: set[str], after: set[str], changes: Mapping[str, int]) -> None:
        """A service was brought up to date: its addresses, and changes by operation."""
        self.added.observe(len(after - before))
        self.removed.observe(len(before - after))
        self.changed.observe(sum(changes.values()), TOPOLOGY)
        for operation, count in changes.items():
            self.changes.add(operation, by=count)
        self.syncs.add("success")

    def families(self, prefix: str, standing: int) -> list[Family]:
        """``standing``: how many slices there are."""
        gauges = (
            ("endpoints_desired", "Endpoints wanted", sum(d.endpoints for d in self._all())),
            ("num_endpoint_slices", "Slices there are", standing),
            (
                "desired_endpoint_slices",
                "Slices there would be if each were full before the next is begun",
                sum(d.slices for d in self._all()),
            ),
        )
        return [
            self.added.family(
                f"{prefix}endpoints_added_per_sync", "Endpoints added to a service at a time"
            ),
            self.removed.family(
                f"{prefix}endpoints_removed_per_sync", "Endpoints taken from a service at a time"
            ),
            self.changed.family(
                f"{prefix}endpointslices_changed_per_sync", "Slices of a service written at a time"
            ),
            self.changes.family(f"{prefix}endpoint_slice_changes", "Slices written"),
            self.syncs.family(f"{prefix}endpoint_slice_syncs", "Services brought up to date"),
            *(family(f"{prefix}{n}", "gauge", text, [({}, value)]) for n, text, value in gauges),
        ]

    def _all(self) -> Iterable[Desired]:
        return self.desired.values()


def desired(bodies: Iterable[Mapping[str, Any]], size: int) -> Desired:
    """Of the slices of one service."""
    groups: Tally[str] = Tally()
    for body in bodies:
        cluster = body["metadata"]["labels"].get(CLUSTER_LABEL, "")
        groups[f"{cluster} {body['addressType']} {json.dumps(body['ports'])}"] += len(
            body["endpoints"]
        )
    return Desired(groups.total(), sum(-(-count // size) for count in groups.values()))


def addresses(slices: Iterable[EndpointSlice]) -> set[str]:
    """What stands, with the cluster it came from."""
    return {
        f"{labels_of(one.metadata).get(CLUSTER_LABEL, '')} {address}"
        for one in slices
        for endpoint in one.endpoints or ()
        for address in endpoint.addresses or ()
    }


def wanted_addresses(bodies: Iterable[Mapping[str, Any]]) -> set[str]:
    """The same of what should stand."""
    return {
        f"{body['metadata']['labels'][CLUSTER_LABEL]} {address}"
        for body in bodies
        for endpoint in body["endpoints"]
        for address in endpoint["addresses"]
    }
