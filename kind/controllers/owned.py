"""What controllers have in common: owners, pods from templates, states of pods. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from kind.apiserver.objects import Obj, condition, dig, labels_of, meta
from kind.apiserver.selectors import Requirement, match_labels, parse_label_selector

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def owner_reference(api_version: str, kind: str, owner: Obj) -> Obj:
    """The reference of the controller of an object."""
    m = owner["metadata"]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": m["name"],
        "uid": m["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Obj | None) -> Obj | None:
    """The owner reference of the controller, if any."""
    refs = (obj or {}).get("metadata", {}).get("ownerReferences") or []
    return next((r for r in refs if r.get("controller")), None)


def owned_by(objects: Iterable[Obj], uid: str) -> list[Obj]:
    """Those whose controller is the object with this UID, oldest first."""
    found = [o for o in objects if (controller_of(o) or {}).get("uid") == uid]
    return sorted(found, key=age_key)


def age_key(obj: Obj) -> tuple[str, str]:
    """Sorts by age, then name."""
    m = obj["metadata"]
    return str(m.get("creationTimestamp")), str(m["name"])


def owners_named(kind: str, *states: Obj | None) -> set[tuple[str, str]]:
    """Namespace and name of the controllers of a kind, of both states of a change."""
    out = set()
    for obj in states:
        ref = controller_of(obj)
        if obj is not None and ref is not None and ref.get("kind") == kind:
            out.add((str(meta(obj).get("namespace") or ""), str(ref["name"])))
    return out


def safe_hash(value: Any) -> str:
    """A short word for a JSON value, fit for names and labels."""
    digest = hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest()
    number = int.from_bytes(digest[:8], "big")
    out = []
    for _ in range(10):
        number, rest = divmod(number, len(_LETTERS))
        out.append(_LETTERS[rest])
    return "".join(out)


def pod_from(template: Obj, owner: Obj, reference: Obj, labels: Mapping[str, str]) -> Obj:
    """A pod to be created: the template's, owned, with additional labels."""
    inner = template.get("metadata") or {}
    m: Obj = {
        "generateName": owner["metadata"]["name"] + "-",
        "namespace": owner["metadata"]["namespace"],
        "labels": (inner.get("labels") or {}) | dict(labels),
        "ownerReferences": [reference],
    }
    if inner.get("annotations"):
        m["annotations"] = inner["annotations"]
    if inner.get("finalizers"):
        m["finalizers"] = inner["finalizers"]
    return {"metadata": m, "spec": template.get("spec") or {}}


def is_ready(pod: Obj) -> bool:
    """The Ready condition."""
    return (condition(pod, "Ready") or {}).get("status") == "True"


def is_terminating(pod: Obj) -> bool:
    """Deletion has begun."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_finished(pod: Obj) -> bool:
    """Succeeded or failed: it will never run again."""
    return dig(pod, "status", "phase") in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    """Counts as a replica."""
    return not is_finished(pod) and not is_terminating(pod)


def selects(selector: Obj | None) -> tuple[Requirement, ...] | None:
    """Requirements of a LabelSelector."""
    return parse_label_selector(selector)


def matching(objects: Iterable[Obj], requirements: tuple[Requirement, ...] | None) -> list[Obj]:
    """The objects a selector selects; ``None`` selects nothing."""
    if requirements is None:
        return []
    return [o for o in objects if match_labels(requirements, labels_of(o))]


def percent(value: Any, total: int, *, up: bool) -> int:
    """A number, or a share of the total such as ``25%``."""
    if isinstance(value, str) and value.endswith("%"):
        exact = int(value[:-1]) * total
        return -(-exact // 100) if up else exact // 100
    return int(value or 0)


def timestamp(now: datetime) -> str:
    """As the API shows times."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def set_condition(conditions: list[Obj], wanted: Obj, now: datetime) -> list[Obj]:
    """With one condition replaced; its transition time moves only when its status does."""
    old = next((c for c in conditions if c.get("type") == wanted["type"]), None)
    moved = old is None or old.get("status") != wanted["status"]
    stamp = timestamp(now)
    since = stamp if moved or old is None else old.get("lastTransitionTime", stamp)
    new = wanted | {"lastTransitionTime": since}
    if old is not None and all(old.get(k) == v for k, v in new.items()):
        return conditions
    out = [c for c in conditions if c.get("type") != wanted["type"]]
    return [*out, new]
