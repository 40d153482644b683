"""Keeps slices of exported Services under the Services behind their imports. Adapter.

What a mirror holds is decided in ``cluster_operator.slice_mirrors``, when there are any in
``cluster_operator.exports``, whose eyes for slices this is.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from cluster_operator.applier import Applier
from cluster_operator.slice_mirrors import is_mirror
from kube.informer import Informer
from kube.port import Client
from kube.resources import ENDPOINT_SLICES
from model.service import ServiceName
from wire.k8s.endpointslice import EndpointSlice, is_copied, owner_of
from wire.k8s.meta import labels_of
from wire.k8s.multicluster import SERVICE_LABEL


class Mirrors:
    """All slices of this cluster's own backends, and the mirrors among them."""

    def __init__(
        self, client: Client, applier: Applier, mark: Callable[[ServiceName], None]
    ) -> None:
        """``mark`` is told the exported service, and whatever else a slice belongs to."""
        self.informer = Informer(client, ENDPOINT_SLICES, self._on_slice)
        self._applier = applier
        self._mark = mark
        self._own: dict[ServiceName, dict[str, EndpointSlice]] = {}
        self._mirrors: dict[ServiceName, dict[str, EndpointSlice]] = {}

    def of(self, service: ServiceName) -> Collection[EndpointSlice]:
        """What Kubernetes, or somebody, says of a Service of this cluster; no copy, no mirror."""
        return self._own.get(service, {}).values()

    async def bring_up(self, derived: ServiceName, wanted: Mapping[str, dict[str, Any]]) -> None:
        """The mirrors of a Service behind an import. Raises ``OSError``."""
        known = dict(self._mirrors.get(derived, {}))
        for name, body in wanted.items():
            await self._applier.apply(ENDPOINT_SLICES, body, known.get(name))
        for name in sorted(known.keys() - wanted.keys()):
            await self._applier.delete(ENDPOINT_SLICES, known[name])

    async def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for slice_, stands in ((old, False), (new, True)):
            owner = owner_of(slice_) if slice_ else None
            if slice_ is None or owner is None or is_copied(slice_):
                continue
            among = self._mirrors if is_mirror(slice_) else self._own
            known = among.setdefault(owner, {})
            known.pop(slice_.metadata.name, None)
            if stands:
                known[slice_.metadata.name] = slice_
            if not known:
                del among[owner]
            # Slices carry the labels of their Service: those behind an import name the export.
            exported = labels_of(slice_.metadata).get(SERVICE_LABEL)
            self._mark(ServiceName(owner.namespace, exported) if exported else owner)
