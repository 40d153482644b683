"""Strategic merge patch for the built-in kinds: lists of objects merge by key. Pure.

Merge keys belong to the field's place in the type, so they are found by the names of the list and
of its parent; a list not named here is replaced whole, as the API does for lists without a key.
"""

from typing import Any

from kind.apiserver.errors import bad_request
from kind.apiserver.objects import Obj

# (parent field, list field) → merge key; "*" stands for any parent.
_MERGE_KEYS: dict[tuple[str, str], str] = {
    ("*", "containers"): "name",
    ("*", "initContainers"): "name",
    ("*", "ephemeralContainers"): "name",
    ("containers", "ports"): "containerPort",
    ("initContainers", "ports"): "containerPort",
    ("spec", "ports"): "port",  # Service
    ("*", "env"): "name",
    ("*", "volumes"): "name",
    ("*", "volumeMounts"): "mountPath",
    ("*", "volumeDevices"): "devicePath",
    ("*", "imagePullSecrets"): "name",
    ("*", "hostAliases"): "ip",
    ("*", "topologySpreadConstraints"): "topologyKey",
    ("*", "resourceClaims"): "name",
    ("status", "conditions"): "type",
    ("status", "addresses"): "type",
    ("metadata", "ownerReferences"): "uid",
    ("root", "secrets"): "name",  # ServiceAccount
    ("root", "imagePullSecrets"): "name",
    ("status", "podIPs"): "ip",
    ("status", "hostIPs"): "ip",
    ("spec", "schedulingGates"): "name",
}
_MERGED_PRIMITIVES = frozenset({"finalizers", "podCIDRs"})
_DIRECTIVE, _ORDER, _RETAIN = "$patch", "$setElementOrder/", "$retainKeys"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def merge_key(parent: str, name: str) -> str | None:
    """The field by which elements of a list are matched, or ``None``."""
    return _MERGE_KEYS.get((parent, name)) or _MERGE_KEYS.get(("*", name))


def strategic_merge(target: Obj, patch: Obj) -> Obj:
    """Raises ``ApiError`` 400 when the patch itself is malformed. The target is not changed."""
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    out = _merge_map(target, patch, "root")
    assert isinstance(out, dict)
    return out


def _merge_map(target: Any, patch: Obj, name: str) -> Any:
    directive = patch.get(_DIRECTIVE)
    if directive == "delete":
        return {}
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != _DIRECTIVE}
    out: Obj = dict(target) if isinstance(target, dict) else {}
    retain = patch.get(_RETAIN)
    if isinstance(retain, list):
        out = {k: v for k, v in out.items() if k in retain}
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_PRIMITIVES):
            field = key.removeprefix(_DELETE_PRIMITIVES)
            gone = value if isinstance(value, list) else []
            out[field] = [v for v in out.get(field) or [] if v not in gone]
        elif value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            out[key] = _merge_map(out.get(key), value, key)
        elif isinstance(value, list):
            order = patch.get(_ORDER + key)
            out[key] = _merge_list(out.get(key), value, name, key, order)
        else:
            out[key] = value
    for key, order in patch.items():
        field = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and field not in patch and isinstance(out.get(field), list):
            out[field] = _merge_list(out[field], [], name, field, order)
    return out


def _merge_list(target: Any, patch: list[Any], parent: str, name: str, order: Any) -> list[Any]:
    old = list(target) if isinstance(target, list) else []
    if name in _MERGED_PRIMITIVES:
        merged = old + [v for v in patch if v not in old]
        return sorted(merged, key=order.index) if _covers(order, merged) else merged
    key = merge_key(parent, name)
    if key is None:
        return [v for v in patch if not (isinstance(v, dict) and v.get(_DIRECTIVE) == "delete")]
    if any(isinstance(p, dict) and p.get(_DIRECTIVE) == "replace" for p in patch):
        return [p for p in patch if not (isinstance(p, dict) and _DIRECTIVE in p)]
    out: list[Any] = list(old)
    for p in patch:
        if not isinstance(p, dict) or key not in p:
            raise bad_request(f"map: {p} does not contain declared merge key: {key}")
        at = next((i for i, o in enumerate(out) if _same(o, p, key)), None)
        if p.get(_DIRECTIVE) == "delete":
            out = [o for o in out if not _same(o, p, key)]
        elif at is None:
            out.append(_merge_map({}, p, name))
        else:
            out[at] = _merge_map(out[at], p, name)
    return _ordered(out, key, order)


def _same(a: Any, b: Obj, key: str) -> bool:
    return isinstance(a, dict) and a.get(key) == b.get(key)


def _covers(order: Any, values: list[Any]) -> bool:
    return isinstance(order, list) and all(v in order for v in values)


def _ordered(items: list[Any], key: str, order: Any) -> list[Any]:
    """The order the client asked for; elements it did not know keep their place at the end."""
    if not isinstance(order, list):
        return items
    wanted = [o.get(key) for o in order if isinstance(o, dict)]
    rank = {v: i for i, v in enumerate(wanted)}
    return sorted(items, key=lambda i: rank.get(i.get(key), len(rank)))
