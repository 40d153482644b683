"""How the API server of this process behaves, and what its watches told. Pure.

One object per process, since its page of metrics is one.
"""

from msgspec.structs import replace

from telemetry.metrics import Counter, Family, Histogram
from wire.k8s.meta import K8sObject

_CREATE, _UPDATE, _DELETE = "create", "update", "delete"
# Kinds that dashboards know by another word.
_SCOPES = {"EndpointSlice": "Endpoint"}


class Observed:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.latency = Histogram(("path", "method"))
        self.calls = Counter(("host", "method", "return_code"))
        self.events = Counter(("scope", "action", "status"))
        self.received = Counter(("scope", "action", "valid", "equal"))

    def called(self, server: str, method: str, path: str, status: int, took_s: float) -> None:
        """A call was answered; of a watch: it has begun."""
        self.latency.observe(took_s, template(path), method)
        self.calls.add(server.partition("://")[2], method, str(status))

    def told(self, scope: str, old: K8sObject | None, new: K8sObject | None) -> None:
        """A watch told of an object, and it was taken."""
        action = _DELETE if new is None else _CREATE if old is None else _UPDATE
        equal = "true" if old is not None and new is not None and same(old, new) else "false"
        scope = _SCOPES.get(scope, scope)
        self.received.add(scope, action, "true", equal)
        self.events.add(scope, action, "success")

    def rejected(self, scope: str, number: int) -> None:
        """So many objects were told that do not decode."""
        scope = _SCOPES.get(scope, scope)
        self.received.add(scope, _UPDATE, "false", "false", by=number)
        self.events.add(scope, _UPDATE, "failed", by=number)

    def families(self, prefix: str) -> list[Family]:
        """All of it, under a process's prefix."""
        return [
            self.latency.family(
                f"{prefix}k8s_client_api_latency_time_seconds",
                "How long the API server took to answer",
            ),
            self.calls.family(
                f"{prefix}k8s_client_api_calls_total", "Calls that the API server answered"
            ),
            self.events.family(
                f"{prefix}kubernetes_events_total", "Objects that watches told of, by outcome"
            ),
            self.received.family(
                f"{prefix}kubernetes_events_received_total",
                "Objects that watches told of; equal: nothing that we read has changed",
            ),
        ]


def same(old: K8sObject, new: K8sObject) -> bool:
    """Whether two versions say the same in all that we read."""
    meta = replace(
        new.metadata,
        resource_version=old.metadata.resource_version,
        generation=old.metadata.generation,
    )
    return meta == old.metadata and all(
        getattr(old, name) == getattr(new, name)
        for name in old.__struct_fields__
        if name != "metadata"
    )


def template(path: str) -> str:
    """A path without names: there are few of these."""
    parts = path.strip("/").split("/")
    at = 2 if parts[0] == "api" else 3  # behind the version: namespaces, or a kind
    if parts[at : at + 1] == ["namespaces"] and len(parts) > at + 2:
        parts[at + 1] = "{namespace}"
        at += 2
    if len(parts) > at + 1:
        parts[at + 1] = "{name}"
    return "/" + "/".join(parts)


OBSERVED = Observed()
