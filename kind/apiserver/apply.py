"""Server-side apply: merge a manager's configuration and remember which fields it set. Pure.

``managedFields`` holds one entry per manager that applied, in Kubernetes' ``fieldsV1`` notation;
updates by other means are not recorded. A field that a manager stops applying goes away unless
another manager applies it too. Taking over another applier's field with a different value is a
conflict unless forced.
"""

from typing import Any

import msgspec

from kind.apiserver.errors import ApiError, bad_request
from kind.apiserver.objects import Obj, dicts, dig, meta
from kind.apiserver.strategic import merge_key

FieldPath = tuple[str, ...]
_SKIPPED = ("apiVersion", "kind")
_SKIPPED_META = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "managedFields",
        "creationTimestamp",
        "generation",
        "selfLink",
    }
)


def _list_key(schema: Obj | None, parent: str, name: str, items: list[Any]) -> list[str]:
    """The keys by which a list of objects merges; empty: the list is one value."""
    if schema is not None:
        if schema.get("x-kubernetes-list-type") == "map":
            return [str(k) for k in schema.get("x-kubernetes-list-map-keys") or []]
        return []
    key = merge_key(parent, name)
    if key is None or not all(isinstance(i, dict) and key in i for i in items):
        return []
    return [key, "protocol"] if key in ("containerPort", "port") else [key]


def _element(item: Obj, keys: list[str]) -> str:
    found = {k: item[k] for k in sorted(keys) if k in item}
    if "protocol" in keys:
        found.setdefault("protocol", "TCP")  # the default stands in what is stored
    return "k:" + msgspec.json.encode(found).decode()


def _sub(schema: Obj | None, name: str) -> Obj | None:
    if schema is None:
        return None
    found = (schema.get("properties") or {}).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def fields_of(value: Any, schema: Obj | None = None, parent: str = "", name: str = "root") -> Obj:
    """The ``fieldsV1`` tree of a configuration."""
    out: Obj = {}
    if isinstance(value, dict):
        for key, item in value.items():
            if name == "root" and key in _SKIPPED:
                continue
            if parent == "root" and name == "metadata" and key in _SKIPPED_META:
                continue
            out[f"f:{key}"] = fields_of(item, _sub(schema, key), name, key)
    elif isinstance(value, list):
        keys = _list_key(schema, parent, name, value)
        items = (schema or {}).get("items") if schema is not None else None
        for item in dicts(value) if keys else []:
            tree = (
                fields_of(item, items, parent, name) if items else fields_of(item, None, name, name)
            )
            out[_element(item, keys)] = {".": {}} | tree
    return out


def _merge(target: Any, applied: Any, schema: Obj | None, parent: str, name: str) -> Any:
    if isinstance(applied, dict):
        out = dict(target) if isinstance(target, dict) else {}
        for key, item in applied.items():
            if item is None:
                continue
            out[key] = _merge(out.get(key), item, _sub(schema, key), name, key)
        return out
    if isinstance(applied, list):
        keys = _list_key(schema, parent, name, applied)
        if keys and isinstance(target, list):
            items = (schema or {}).get("items") if schema is not None else None
            merged = list(target)
            for item in dicts(applied):
                at = next(
                    (
                        i
                        for i, t in enumerate(merged)
                        if isinstance(t, dict) and _element(t, keys) == _element(item, keys)
                    ),
                    None,
                )
                if at is None:
                    merged.append(item)
                else:
                    merged[at] = _merge(merged[at], item, items, name, name)
            return merged
    return applied


def _remove(value: Any, gone: Obj) -> Any:
    """Drop the leaves of a ``fieldsV1`` tree; containers go when nothing of them is left."""
    if isinstance(value, dict):
        out = dict(value)
        for key, tree in gone.items():
            field = key.removeprefix("f:")
            if key.startswith("f:") and field in out:
                left = _remove(out[field], tree) if tree else None
                if left in (None, {}, []):
                    del out[field]
                else:
                    out[field] = left
        return out
    if isinstance(value, list):
        out_list = list(value)
        for key, tree in gone.items():
            if not key.startswith("k:"):
                continue
            wanted = msgspec.json.decode(key[2:])
            for item in [
                i for i in dicts(out_list) if all(i.get(k) == v for k, v in wanted.items())
            ]:
                if "." in tree:
                    out_list.remove(item)
                else:
                    out_list[out_list.index(item)] = _remove(item, tree)
        return out_list
    return None


def _minus(a: Obj, b: Obj) -> Obj:
    """What is in ``a`` and not in ``b``; a leaf of ``a`` counts only when ``b`` lacks it."""
    out: Obj = {}
    for key, tree in a.items():
        if key not in b:
            out[key] = tree
        elif left := _minus(tree, b[key]):
            out[key] = left
    return out


def _common(a: Obj, b: Obj) -> Obj:
    """Leaves that both trees have."""
    out: Obj = {}
    for key, tree in a.items():
        if key in b and key != ".":
            if not tree and not b[key]:
                out[key] = {}
            elif both := _common(tree, b[key]):
                out[key] = both
    return out


def _leaf_paths(tree: Obj, path: FieldPath = ()) -> list[FieldPath]:
    out: list[FieldPath] = []
    for key, sub in tree.items():
        if key == ".":
            continue
        at = (*path, key)
        out += _leaf_paths(sub, at) if any(k != "." for k in sub) else [at]
    return out


def _at(value: Any, path: FieldPath) -> Any:
    for step in path:
        if step.startswith("f:"):
            value = dig(value, step[2:])
        else:
            wanted = msgspec.json.decode(step[2:])
            value = next(
                (i for i in dicts(value) if all(i.get(k) == v for k, v in wanted.items())), None
            )
    return value


def apply(
    current: Obj, config: Obj, manager: str, force: bool, now: str, schema: Obj | None = None
) -> Obj:
    """The object after a manager applied ``config``. Raises ``ApiError`` 400 or 409."""
    if not manager:
        raise bad_request(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value:'
            " is required for apply patch"
        )
    if meta(config).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    mine = {k: v for k, v in fields_of(config, schema).items() if v or k != "f:metadata"}
    entries = dicts(meta(current).get("managedFields"))
    before: Obj = {}
    others: list[tuple[str, Obj]] = []
    for e in entries:
        tree = e.get("fieldsV1") or {}
        if e.get("manager") == manager and e.get("operation") == "Apply":
            before = tree
        else:
            others.append((str(e.get("manager")), tree))
    conflicts: list[tuple[str, FieldPath]] = []
    for other, tree in others:
        conflicts += [
            (other, path)
            for path in _leaf_paths(_common(mine, tree))
            if _at(current, path) != _at(config, path)
        ]
    if conflicts and not force:
        raise _conflict(conflicts)
    gone = _minus(before, mine)
    for _, tree in others:
        gone = _minus(gone, tree)
    out = _remove(current, gone) if gone else current
    merged: Obj = _merge(out, config, schema, "", "root")
    kept = [
        e for e in entries if not (e.get("manager") == manager and e.get("operation") == "Apply")
    ]
    taken = {path for _, path in conflicts}
    for e in kept:
        e["fieldsV1"] = _without(e.get("fieldsV1") or {}, taken)
    entry = {
        "manager": manager,
        "operation": "Apply",
        "apiVersion": config.get("apiVersion"),
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": mine,
    }
    unchanged = next(
        (e for e in entries if e.get("manager") == manager and e.get("fieldsV1") == mine), None
    )
    meta(merged)["managedFields"] = [*kept, unchanged or entry]
    return merged


def _without(tree: Obj, paths: set[FieldPath], at: FieldPath = ()) -> Obj:
    return {k: _without(v, paths, (*at, k)) for k, v in tree.items() if (*at, k) not in paths}


def _conflict(found: list[tuple[str, FieldPath]]) -> ApiError:
    causes = []
    for manager, path in found:
        steps = [f".{p[2:]}" if p.startswith("f:") else f"[{p[2:]}]" for p in path]
        causes.append(
            {
                "reason": "FieldManagerConflict",
                "field": "".join(steps),
                "message": f'conflict with "{manager}"',
            }
        )
    first = f'conflict with "{found[0][0]}": {causes[0]["field"]}'
    many = f"{len(found)} conflicts: " if len(found) > 1 else "1 conflict: "
    return ApiError(409, "Conflict", f"Apply failed with {many}{first}", {"causes": causes})
