"""What a Deployment wants of its ReplicaSets. Pure."""

from datetime import datetime

from kind.apiserver.objects import Obj, dicts, dig, meta
from kind.controllers.owned import (
    owner_reference,
    percent,
    safe_hash,
    set_condition,
)

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def template_hash(deployment: Obj) -> str:
    """The word that names the ReplicaSet of the current template."""
    return safe_hash(dig(deployment, "spec", "template"))


def _template_of(replica_set: Obj) -> Obj:
    template: Obj = dig(replica_set, "spec", "template") or {}
    m = dict(template.get("metadata") or {})
    m["labels"] = {k: v for k, v in (m.get("labels") or {}).items() if k != HASH_LABEL}
    return template | {"metadata": m}


def _same_template(a: Obj, b: Obj) -> bool:
    def norm(t: Obj) -> Obj:
        m = {k: v for k, v in (t.get("metadata") or {}).items() if v not in (None, {})}
        return t | {"metadata": m}

    return norm(a) == norm(b)


def find_new(deployment: Obj, sets: list[Obj]) -> Obj | None:
    """The ReplicaSet of the current template."""
    wanted = dig(deployment, "spec", "template") or {}
    return next((s for s in sets if _same_template(_template_of(s), wanted)), None)


def revision_of(obj: Obj) -> int:
    """The roll-out number in the annotation; 0 when absent."""
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def new_set(deployment: Obj, sets: list[Obj], replicas: int) -> Obj:
    """The ReplicaSet to create for the current template."""
    m = deployment["metadata"]
    word = template_hash(deployment)
    template = dig(deployment, "spec", "template")
    inner = template.get("metadata") or {}
    labels = (inner.get("labels") or {}) | {HASH_LABEL: word}
    selector = dict(dig(deployment, "spec", "selector") or {})
    selector["matchLabels"] = (selector.get("matchLabels") or {}) | {HASH_LABEL: word}
    revision = max((revision_of(s) for s in sets), default=0) + 1
    return {
        "metadata": {
            "name": f"{m['name']}-{word}",
            "namespace": m["namespace"],
            "labels": labels,
            "annotations": annotations_for_set(deployment) | {REVISION: str(revision)},
            "ownerReferences": [owner_reference("apps/v1", "Deployment", deployment)],
        },
        "spec": {
            "replicas": replicas,
            "selector": selector,
            "template": template | {"metadata": inner | {"labels": labels}},
        },
    }


def annotations_for_set(deployment: Obj) -> dict[str, str]:
    """The deployment's annotations that its ReplicaSets carry too."""
    skipped = ("kubectl.kubernetes.io/last-applied-configuration", REVISION)
    found = deployment["metadata"].get("annotations") or {}
    return {k: v for k, v in found.items() if k not in skipped}


def limits(deployment: Obj) -> tuple[int, int]:
    """How many pods may be too many, and how many may be missing, during a roll-out."""
    wanted = int(dig(deployment, "spec", "replicas") or 0)
    rolling = dig(deployment, "spec", "strategy", "rollingUpdate") or {}
    surge = percent(rolling.get("maxSurge", "25%"), wanted, up=True)
    missing = percent(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    return (surge, missing) if surge or missing else (0, 1)


def _replicas(s: Obj) -> int:
    return int(dig(s, "spec", "replicas") or 0)


def _available(s: Obj) -> int:
    """Never more than wanted: the status lags behind a scaling down."""
    return min(_replicas(s), int(dig(s, "status", "availableReplicas") or 0))


def _pods(s: Obj) -> int:
    return int(dig(s, "status", "replicas") or 0)


def desired_scales(deployment: Obj, new: Obj | None, old: list[Obj]) -> dict[str, int]:
    """Name of ReplicaSet → replicas, only for those to be changed; new pods come before old go."""
    wanted = int(dig(deployment, "spec", "replicas") or 0)
    out: dict[str, int] = {}

    def scale(s: Obj, replicas: int) -> None:
        if _replicas(s) != replicas:
            out[s["metadata"]["name"]] = replicas

    if dig(deployment, "spec", "paused") is True:
        every = [*([new] if new else []), *old]
        if len([s for s in every if _replicas(s)]) <= 1:
            for s in every[:1]:
                scale(s, wanted)
        return out
    if new is None:
        return out
    if dig(deployment, "spec", "strategy", "type") == "Recreate":
        for s in old:
            scale(s, 0)
        if not any(_replicas(s) or _pods(s) for s in old):
            scale(new, wanted)
        return out
    surge, missing = limits(deployment)
    total = _replicas(new) + sum(_replicas(s) for s in old)
    room = wanted + surge - total
    if _replicas(new) > wanted:
        scale(new, wanted)
    elif _replicas(new) < wanted and room > 0:
        scale(new, min(wanted, _replicas(new) + room))
    available = _available(new) + sum(_available(s) for s in old)
    may_go = available - (wanted - missing)
    # Pods of the new set that are not yet available do not allow old ones to go.
    for s in sorted(old, key=lambda o: str(o["metadata"].get("creationTimestamp"))):
        unhealthy = _replicas(s) - _available(s)
        gone = min(_replicas(s), max(0, unhealthy))
        healthy_gone = min(_replicas(s) - gone, max(0, may_go))
        may_go -= healthy_gone
        if gone or healthy_gone:
            scale(s, _replicas(s) - gone - healthy_gone)
    return out


def first_scale(deployment: Obj, old: list[Obj]) -> int:
    """Replicas a new ReplicaSet begins with."""
    wanted = int(dig(deployment, "spec", "replicas") or 0)
    if dig(deployment, "spec", "strategy", "type") == "Recreate":
        return 0 if any(_replicas(s) or _pods(s) for s in old) else wanted
    surge, _ = limits(deployment)
    return max(0, min(wanted, wanted + surge - sum(_replicas(s) for s in old)))


def superfluous(deployment: Obj, old: list[Obj]) -> list[Obj]:
    """Empty ReplicaSets beyond the history limit, oldest revisions first."""
    limit = dig(deployment, "spec", "revisionHistoryLimit")
    keep = 10 if limit is None else int(limit)
    empty = [
        s
        for s in old
        if not _replicas(s) and not _pods(s) and not s["metadata"].get("deletionTimestamp")
    ]
    empty.sort(key=revision_of)
    return empty[: max(0, len(empty) - keep)]


def status_of(deployment: Obj, new: Obj | None, old: list[Obj], now: datetime) -> Obj:
    """The status that the ReplicaSets give."""
    every = [*([new] if new else []), *old]
    wanted = int(dig(deployment, "spec", "replicas") or 0)
    total, available = sum(map(_pods, every)), sum(map(_available, every))
    updated = _pods(new) if new else 0
    ready = sum(int(dig(s, "status", "readyReplicas") or 0) for s in every)
    _, missing = limits(deployment)
    enough = available >= wanted - missing
    name = new["metadata"]["name"] if new else ""
    done = new is not None and updated == wanted == total == _available(new)
    conditions = dicts(dig(deployment, "status", "conditions"))
    conditions = set_condition(
        conditions,
        {
            "type": "Available",
            "status": "True" if enough else "False",
            "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        },
        now,
    )
    conditions = set_condition(
        conditions,
        {
            "type": "Progressing",
            "status": "True",
            "reason": "NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
            "message": f'ReplicaSet "{name}" has successfully progressed.'
            if done
            else f'ReplicaSet "{name}" is progressing.',
        },
        now,
    )
    return {
        "observedGeneration": meta(deployment).get("generation", 0),
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(wanted, total) - available),
        "conditions": conditions,
    }
