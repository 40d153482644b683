"""Kubernetes objects as plain dictionaries, and the few ways we look into them. Pure.

Objects stay untyped on purpose: the server must carry every field a client sends, known or not.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

Obj: TypeAlias = dict[str, Any]


def meta(obj: Obj) -> Obj:
    """The metadata, made if absent or of a wrong type."""
    found = obj.get("metadata")
    if not isinstance(found, dict):
        found = obj["metadata"] = {}
    return found


def name_of(obj: Obj) -> str:
    """``metadata.name`` or the empty string."""
    return str(meta(obj).get("name") or "")


def namespace_of(obj: Obj) -> str:
    """``metadata.namespace`` or the empty string."""
    return str(meta(obj).get("namespace") or "")


def labels_of(obj: Obj) -> dict[str, str]:
    """``metadata.labels``, empty when absent."""
    return (obj.get("metadata") or {}).get("labels") or {}


def dig(obj: Any, *path: str | int) -> Any:
    """Follow keys and indexes; ``None`` as soon as one is missing."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(obj, list) or not -len(obj) <= step < len(obj):
                return None
            obj = obj[step]
        else:
            if not isinstance(obj, dict):
                return None
            obj = obj.get(step)
    return obj


def dicts(value: Any) -> list[Obj]:
    """The dictionaries of a list; empty when it is no list."""
    return [i for i in value if isinstance(i, dict)] if isinstance(value, list) else []


def condition(obj: Obj, kind: str) -> Obj | None:
    """The status condition of a type."""
    found: Iterable[Obj] = dicts(dig(obj, "status", "conditions"))
    return next((c for c in found if c.get("type") == kind), None)
