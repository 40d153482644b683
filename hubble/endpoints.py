"""The two ends of a flow as messages. Pure.

What is known of an address hardly ever changes between two events, so messages are kept; a change
of names drops them all.
"""

from hubble.names import WORLD, Labelled, Names
from wire.hubble import flow_pb2 as f

_KEPT_MAX = 1 << 14


class EndpointMessages:
    """Makes ``flow.Endpoint`` of an address and the identity that the datapath saw."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._kept: dict[tuple[bytes, int], f.Endpoint] = {}
        self._revision = -1
        self._changed_ns = 0

    def get(self, address: bytes, identity: int, at_ns: int) -> f.Endpoint:
        """Not to be changed by the caller. ``identity`` 0: the datapath did not know."""
        names = self._names
        if names.changed_ns > at_ns:  # names were others at that time
            return self._make(address, identity, at_ns)
        if self._revision != names.revision or len(self._kept) >= _KEPT_MAX:
            self._kept = {}
            self._revision = names.revision
        key = address, identity
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._make(address, identity, at_ns)
        return found

    def _make(self, address: bytes, identity: int, at_ns: int) -> f.Endpoint:
        names = self._names
        local = names.local(address, at_ns) if address else None
        made = f.Endpoint()
        if local is not None:
            made.ID = local.id
            made.namespace, made.pod_name = local.namespace, local.pod
            if local.workload is not None:
                made.workloads.add(name=local.workload[0], kind=local.workload[1])
            made.identity = identity or local.identity
            same = made.identity == local.identity
            labelled = (
                Labelled(local.labels, local.cluster)
                if same
                else names.identity(made.identity, at_ns)
            )
        else:
            known = names.known(address, at_ns) if address else None
            if known is not None:
                made.namespace, made.pod_name = known.namespace, known.pod
            if identity:
                made.identity = identity
            elif known is not None:
                made.identity = known.identity
            elif address:
                made.identity = WORLD
            labelled = names.identity(made.identity, at_ns)
        made.labels.extend(labelled.labels)
        made.cluster_name = labelled.cluster
        return made
