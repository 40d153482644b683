"""How the stores of this process behave: durations, waits, errors, and rounds of upkeep. Pure.

One object per process, since its page of metrics is one. Names are Cluster Mesh's; the prefix is
the process's own.
"""

from typing import Any

from telemetry.metrics import Counter, Family, Histogram

_DATA = ("state", "cache")


class Observed:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.operations = Histogram(("scope", "kind", "action", "outcome"))
        self.events = Histogram(("scope", "action"))
        self.quorum_errors = Counter(("error",))
        self.runs = Counter(("status", "group_name"))

    def ran(self, group: str, ok: bool) -> None:
        """A round of upkeep has ended."""
        self.runs.add("success" if ok else "failure", group)

    def families(self, prefix: str) -> list[Family]:
        """All of it, under a process's prefix."""
        return [
            self.operations.family(
                f"{prefix}kvstore_operations_duration_seconds", "Duration of calls to a store"
            ),
            self.events.family(
                f"{prefix}kvstore_events_queue_seconds",
                "How long the events of one message kept the next ones waiting",
            ),
            self.quorum_errors.family(
                f"{prefix}kvstore_quorum_errors_total", "Stores that did not answer as one should"
            ),
            self.runs.family(
                f"{prefix}controllers_group_runs_total", "Rounds of upkeep by outcome"
            ),
        ]


def scope_of(key: str) -> str:
    """``nodes/v1`` for data, be it state or cache; else the first word below the root."""
    parts = key.split("/", 4)
    if len(parts) > 3 and parts[1] in _DATA:
        return f"{parts[2]}/{parts[3]}"
    return parts[1] if len(parts) > 1 else "all"


_CALLS = {
    "KV/Range": ("read", "get"),
    "KV/Put": ("set", "update"),
    "KV/DeleteRange": ("delete", "delete"),
    "KV/Txn": ("set", "transaction"),
    "Lease/LeaseGrant": ("set", "grant"),
    "Lease/LeaseRevoke": ("delete", "revoke"),
}
_OF_PREFIXES = {"get": "listPrefix", "delete": "deletePrefix"}


def described(method: str, request: Any) -> tuple[str, str, str]:
    """Scope, kind and action of a call; a transaction has the scope of its first operation."""
    kind, action = _CALLS.get(method, ("read", method.rpartition("/")[2].lower()))
    if method == "KV/Txn":
        first = next(iter(request.success), None)
        request = getattr(first, first.WhichOneof("request")) if first is not None else None
    if request is None or not hasattr(request, "key"):
        return ("leases" if method.startswith("Lease/") else "all"), kind, action
    if getattr(request, "range_end", b""):
        action = _OF_PREFIXES.get(action, action)
    return scope_of(request.key.decode(errors="replace")), kind, action


OBSERVED = Observed()
