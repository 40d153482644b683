"""The namespaces of the last hour's flows. Pure; times are ns since 1970.

Flows are decoded when somebody reads them only, so this looks at the identities of raw records, at
the newest of them where more came than it can look at: namespaces that matter come again.
"""

from hubble.names import Names
from hubble.ring import RECORD_ACCESS_LOG, Ring, is_flow
from wire.bpf import events

KEPT_NS = 3600 * 10**9
RECORDS_MAX = 4096  # of one look: some ten milliseconds
_NAMESPACE = "k8s:io.kubernetes.pod.namespace="


class SeenNamespaces:
    """Asked now and then to look at what came into ``ring``."""

    def __init__(self, ring: Ring, names: Names) -> None:
        self._ring, self._names = ring, names
        self._next = 1
        self._seen: dict[tuple[str, str], int] = {}  # cluster and namespace, when last

    def look(self) -> None:
        """At the records since the last time."""
        ring = self._ring
        first = max(self._next, ring.oldest, ring.newest - RECORDS_MAX + 1)
        identities: dict[int, int] = {}
        for number in range(first, ring.newest + 1):
            entry = ring.at(number)
            if entry is None or not is_flow(entry.record):
                continue
            if entry.record[0] == RECORD_ACCESS_LOG:
                continue  # its connection has been seen, too
            try:
                found = self._identities(entry.record, entry.time_ns)
            except ValueError:
                continue
            identities.update(dict.fromkeys(found, entry.time_ns))
        self._next = ring.newest + 1
        for identity, time_ns in identities.items():
            self._note(identity, time_ns)

    def _identities(self, record: bytes, at_ns: int) -> tuple[int, ...]:
        event = events.parse(record)
        if isinstance(event, events.Trace | events.Drop):
            return event.source_identity, event.destination_identity
        if isinstance(event, events.Translation):
            return (event.source_identity,)
        if isinstance(event, events.PolicyVerdict):
            local = self._names.endpoint(event.header.endpoint, at_ns)
            return event.remote_identity, local.identity if local else 0
        return ()

    def _note(self, identity: int, time_ns: int) -> None:
        known = self._names.identity(identity, time_ns)
        for label in known.labels:
            if label.startswith(_NAMESPACE):
                key = known.cluster or self._names.self.cluster, label[len(_NAMESPACE) :]
                self._seen[key] = max(self._seen.get(key, 0), time_ns)

    def get(self, now_ns: int) -> list[tuple[str, str]]:
        """(cluster, namespace) of the last hour, in order; what is older is forgotten."""
        self.look()
        self._seen = {k: at for k, at in self._seen.items() if at > now_ns - KEPT_NS}
        return sorted(self._seen)
