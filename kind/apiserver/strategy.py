"""What the server itself decides about an object on create and update. Pure.

Server-owned metadata, which part of an object a path may change, when the generation grows.
"""

from dataclasses import dataclass
from typing import Any

from kind.apiserver import schema, shapes
from kind.apiserver.defaults import apply_defaults
from kind.apiserver.errors import ApiError, bad_request, conflict, invalid
from kind.apiserver.objects import Obj, dicts, dig, meta, name_of, namespace_of
from kind.apiserver.resources import Resource
from kind.apiserver.validate import required, validate, validate_metadata

_SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)
_COUNTED = ("apps", "batch", "networking.k8s.io", "policy", "apiextensions.k8s.io")
_KEEPS_STATUS_ON_CREATE = frozenset({"core/nodes"})


@dataclass(frozen=True, slots=True)
class Stamp:
    """The outside facts of one creation: time, a fresh UID, letters for ``generateName``."""

    now: str
    uid: str
    suffix: str


def check_type(resource: Resource, obj: object) -> Obj:
    """A body is an object of the path's kind; absent type fields are filled in."""
    if not isinstance(obj, dict):
        raise bad_request(f"a {resource.kind} is a JSON object")
    for field, wanted in (("apiVersion", resource.group_version), ("kind", resource.kind)):
        found = obj.setdefault(field, wanted)
        if found != wanted:
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled: the object '
                f'provided has {field} "{found}", the request path expects "{wanted}"'
            )
    if not isinstance(obj.get("metadata", {}), dict):
        raise bad_request(f"metadata of a {resource.kind} is a JSON object")
    return obj


def check_shape(resource: Resource, obj: Obj) -> Obj:
    """A built-in object without nulls, which mean absence. Raises ``ApiError`` 400.

    Custom kinds have their schema; of them only the metadata is looked at.
    """
    if not resource.custom:
        obj = _without_nulls(obj)
    causes = shapes.wrong_types("" if resource.custom else resource.table, obj)
    if causes:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a '
            f"{resource.kind}: {'; '.join(c.text() for c in causes)}"
        )
    return obj


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def check_place(resource: Resource, obj: Obj, namespace: str, name: str) -> None:
    """Namespace and name of the body agree with the path."""
    m = meta(obj)
    if resource.namespaced:
        if namespace_of(obj) and namespace_of(obj) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace "
                "sent on the request"
            )
        m["namespace"] = namespace
    else:
        m.pop("namespace", None)
    if name and name_of(obj) and name_of(obj) != name:
        raise bad_request(
            f"the name of the object ({name_of(obj)}) does not match the name on the URL ({name})"
        )
    if name:
        m["name"] = name


def pretreat(resource: Resource, obj: Obj) -> list[str]:
    """Defaults, and pruning for custom kinds; returns the paths of unknown fields."""
    if not resource.custom:
        apply_defaults(resource.table, obj)
        return []
    if resource.schema is None:
        return []
    unknown = schema.prune(obj, resource.schema)
    schema.apply_defaults(obj, resource.schema)
    return unknown


def check(resource: Resource, obj: Obj, old: Obj | None = None) -> None:
    """Raises ``ApiError`` 422 with every cause."""
    if resource.custom:
        causes = validate_metadata(resource.table, obj)
        if resource.schema is not None:
            causes += schema.validate(obj, resource.schema)
    else:
        causes = validate(resource.table, obj, old)
    if causes:
        raise invalid(resource.group, resource.kind, name_of(obj), causes)


def prepare_create(resource: Resource, obj: Obj, stamp: Stamp) -> list[str]:
    """Make a client's object ready to be stored, in place. Returns pruned fields."""
    m = meta(obj)
    if m.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if not m.get("name"):
        prefix = m.get("generateName")
        if not prefix:
            cause = required("metadata.name", "name or generateName is required")
            raise invalid(resource.group, resource.kind, "", [cause])
        m["name"] = f"{str(prefix)[:58]}{stamp.suffix}"
    for field in (*_SERVER_OWNED, "selfLink", "resourceVersion"):
        m.pop(field, None)
    m["uid"] = stamp.uid
    m["creationTimestamp"] = stamp.now
    if resource.custom or resource.group in _COUNTED:
        m["generation"] = 1
    if resource.status and resource.table not in _KEEPS_STATUS_ON_CREATE:
        obj.pop("status", None)
    unknown = pretreat(resource, obj)
    if resource.table == "core/pods":
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj)}
    check(resource, obj)
    return unknown


def qos_class(pod: Obj) -> str:
    """Guaranteed, Burstable or BestEffort, by the resources of the containers."""
    containers = dicts(dig(pod, "spec", "containers"))
    stated = [c.get("resources") or {} for c in containers]
    if not any(r.get("requests") or r.get("limits") for r in stated):
        return "BestEffort"
    exact = all(
        set(r.get("limits") or {}) >= {"cpu", "memory"}
        and (r.get("requests") or r["limits"]) == r["limits"]
        for r in stated
    )
    return "Guaranteed" if exact else "Burstable"


def check_preconditions(resource: Resource, current: Obj, uid: str, version: str) -> None:
    """409 unless the object is the one the client means."""
    m = meta(current)
    if uid and uid != m.get("uid"):
        raise conflict(
            resource.group,
            resource.plural,
            name_of(current),
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {m.get('uid')}",
        )
    if version and version not in ("0", m.get("resourceVersion")):
        raise conflict(resource.group, resource.plural, name_of(current))


def prepare_update(resource: Resource, new: Obj, old: Obj, part: str = "") -> tuple[Obj, list[str]]:
    """The object to store when ``new`` replaces ``old``; ``part`` is "" or "status"."""
    m, before = meta(new), meta(old)
    check_preconditions(resource, old, str(m.get("uid") or ""), str(m.get("resourceVersion") or ""))
    m.pop("selfLink", None)
    for field in _SERVER_OWNED:
        if field in before:
            m[field] = before[field]
        else:
            m.pop(field, None)
    if part == "status":
        out = {k: v for k, v in old.items() if k != "status"}
        if "status" in new:
            out["status"] = new["status"]
        if not resource.custom:
            owners = before.get("ownerReferences")
            out["metadata"] = m if owners is None else m | {"ownerReferences": owners}
        unknown = pretreat(resource, out)
        if resource.custom:
            check(resource, out)
        return out, unknown
    if resource.status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    _carry_over(resource, new, old)
    unknown = pretreat(resource, new)
    if resource.custom or resource.group in _COUNTED:
        ignored = (
            ("metadata", "status") if resource.status or not resource.custom else ("metadata",)
        )
        if _without(new, ignored) != _without(old, ignored):
            m["generation"] = int(before.get("generation") or 0) + 1
    check(resource, new, old)
    return new, unknown


def _without(obj: Obj, fields: tuple[str, ...]) -> Obj:
    return {k: v for k, v in obj.items() if k not in fields}


def _carry_over(resource: Resource, new: Obj, old: Obj) -> None:
    """What the server allocated stays when a client leaves it out."""
    if resource.table == "core/namespaces":
        finalizers = dig(old, "spec", "finalizers")
        new["spec"] = (new.get("spec") or {}) | ({"finalizers": finalizers} if finalizers else {})
    if resource.table == "core/pods" and dig(old, "spec", "nodeName"):
        _spec(new).setdefault("nodeName", old["spec"]["nodeName"])
    if resource.table == "core/services" and dig(old, "spec", "type") != "ExternalName":
        spec, was = _spec(new), old.get("spec") or {}
        if spec.get("type", "ClusterIP") == "ExternalName":
            return
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field) and field in was:
                spec[field] = was[field]
        ports = {
            (p.get("port"), p.get("protocol")): p.get("nodePort") for p in dicts(was.get("ports"))
        }
        for p in dicts(spec.get("ports")):
            kept = ports.get((p.get("port"), p.get("protocol", "TCP")))
            if kept and not p.get("nodePort") and spec.get("type") in ("NodePort", "LoadBalancer"):
                p["nodePort"] = kept


def _spec(obj: Obj) -> Obj:
    spec: Obj = obj.setdefault("spec", {})
    return spec


def strict_error(resource: Resource, unknown: list[str]) -> ApiError:
    """What ``fieldValidation=Strict`` answers to unknown fields."""
    listed = ", ".join(f'unknown field "{u}"' for u in unknown)
    return bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a '
        f"{resource.kind}: strict decoding error: {listed}"
    )


def same(a: Obj, b: Obj) -> bool:
    """Equal but for the resourceVersion: nothing needs to be written."""
    return _stripped(a) == _stripped(b)


def _stripped(obj: Obj) -> Obj:
    return obj | {"metadata": {k: v for k, v in meta(obj).items() if k != "resourceVersion"}}
