"""Which pod a person means: by its name, its workload's, or how one of them begins. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wire.k8s.pod import Pod
from wire.k8s.workload import workload_of

Json = Mapping[str, Any]
SHOWN = 5  # candidates that an error names


def pick(pods: Sequence[Json], name: str) -> Json:
    """One of a namespace's pods. Of a workload's pods the first by name that has an address.

    Raises ``LookupError``: nobody is meant, or pods of several workloads are.
    """
    by_workload: dict[str, list[Json]] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        own = str(pod["metadata"]["name"])
        if own == name:
            return pod
        by_workload.setdefault(_workload(pod) or own, []).append(pod)
    found = [name] if name in by_workload else _beginning(by_workload, name)
    if not found:
        raise LookupError("there is none, and no workload of that name")
    if len(found) > 1:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise LookupError(f"it could be of {', '.join(found[:SHOWN])}{more}")
    copies = by_workload[found[0]]
    copies = [pod for pod in copies if pod["metadata"]["name"].startswith(name)] or copies
    return next((pod for pod in copies if (pod.get("status") or {}).get("podIP")), copies[0])


def _beginning(by_workload: Mapping[str, Sequence[Json]], name: str) -> list[str]:
    return [
        workload
        for workload, pods in by_workload.items()
        if workload.startswith(name)
        or any(str(pod["metadata"]["name"]).startswith(name) for pod in pods)
    ]


def _workload(pod: Json) -> str:
    found = workload_of(msgspec.convert(pod, Pod, strict=False))
    return found[0] if found else ""
