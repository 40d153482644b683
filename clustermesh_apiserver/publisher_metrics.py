"""The metrics page of ``clustermesh``. Reads values only; names are Cluster Mesh's."""

from collections.abc import Mapping

from clustermesh_apiserver.requests import Requests
from kvstore.observed import OBSERVED
from telemetry.metrics import Family, family, render

PREFIX = "cilium_clustermesh_apiserver_"


def page(
    cluster: str,
    *,
    bootstrap_s: float,
    listed: Mapping[str, bool],
    written: Mapping[str, bool],
    queued: Mapping[str, int],
    errors: Mapping[str, int],
    own: list[Family],
    requests: Requests,
) -> str:
    """``listed`` to ``errors`` are by scope; ``own``: families that Cluster Mesh does not have."""
    here = {"source_cluster": cluster}
    scopes = sorted({*listed, *written})

    def by_scope(values: Mapping[str, float]) -> list[tuple[dict[str, str], float]]:
        every = {**dict.fromkeys(scopes, 0.0), **values}
        return [({"scope": scope, **here}, value) for scope, value in sorted(every.items())]

    families = [
        family(
            f"{PREFIX}bootstrap_seconds",
            "gauge",
            "Duration from start to the last canary",
            [(here, bootstrap_s)],
        ),
        family(
            f"{PREFIX}kvstore_initial_sync_completed",
            "gauge",
            "Whether the first lists were read and written",
            [
                ({"scope": scope, **here, "action": action}, float(done.get(scope, False)))
                for scope in scopes
                for action, done in (("read", listed), ("write", written))
            ],
        ),
        family(
            f"{PREFIX}kvstore_sync_queue_size", "gauge", "Rows not written yet", by_scope(queued)
        ),
        family(
            f"{PREFIX}kvstore_sync_errors_total",
            "counter",
            "Failed writes and lost connections",
            by_scope(errors),
        ),
        *OBSERVED.families(PREFIX),
        *requests.families(PREFIX),
        *own,
    ]
    return render(families)


def counted(name: str, kind: str, text: str, labels: Mapping[str, str], value: float) -> Family:
    """A family of one sample."""
    return family(f"{PREFIX}{name}", kind, text, [(labels, value)])
