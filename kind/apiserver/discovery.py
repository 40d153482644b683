"""What the server offers, as clients ask for it: groups, versions, resources, OpenAPI. Pure."""

from kind.apiserver.objects import Obj
from kind.apiserver.resources import Registry, Resource

VERSION: Obj = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0-isthmus",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}


def api_versions() -> Obj:
    """``/api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(registry: Registry) -> Obj:
    """``/apis``."""
    groups = [_group(g, v) for g, v in registry.groups().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Obj | None:
    """``/apis/GROUP``."""
    versions = registry.groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, versions) if versions else None


_SCALE = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
# Subresource → the kind it takes, when it is not the resource's own.
_SUB_KINDS: dict[str, dict[str, str]] = {
    "binding": {"group": "", "version": "v1", "kind": "Binding"},
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "token": {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"},
    "scale": _SCALE,
}
_SUB_VERBS: dict[str, tuple[str, ...]] = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "finalize": ("update",),
    "log": ("get",),
    "exec": ("create", "get"),
    "attach": ("create", "get"),
    "portforward": ("create", "get"),
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
}
_STREAM_KINDS = {
    "exec": "PodExecOptions",
    "attach": "PodAttachOptions",
    "portforward": "PodPortForwardOptions",
}


def _subresources(r: Resource) -> list[str]:
    return [
        *(["status"] if r.status else []),
        *(["scale"] if r.scale else []),
        *r.extra_subresources,
    ]


def _sub_kind(r: Resource, sub: str) -> dict[str, str]:
    own = {"group": r.group, "version": r.version, "kind": _STREAM_KINDS.get(sub, r.kind)}
    return _SUB_KINDS.get(sub, own)


def resource_list(registry: Registry, group_name: str, version: str) -> Obj | None:
    """``/api/v1`` or ``/apis/GROUP/VERSION``."""
    found = [r for r in registry.all() if (r.group, r.version) == (group_name, version)]
    if not found:
        return None
    out = []
    for r in found:
        entry: Obj = {
            "name": r.plural,
            "singularName": r.singular,
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
        }
        if r.short_names:
            entry["shortNames"] = list(r.short_names)
        if r.categories:
            entry["categories"] = list(r.categories)
        out.append(entry)
        for sub in _subresources(r):
            kind = _sub_kind(r, sub)
            entry = {
                "name": f"{r.plural}/{sub}",
                "singularName": "",
                "namespaced": r.namespaced,
                "kind": kind["kind"],
                "verbs": list(_SUB_VERBS[sub]),
            }
            if (kind["group"], kind["version"]) != (r.group, r.version):
                entry |= {"group": kind["group"], "version": kind["version"]}
            out.append(entry)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group_name}/{version}" if group_name else version,
        "resources": out,
    }


def aggregated(registry: Registry, core: bool, api_version: str) -> Obj:
    """``APIGroupDiscoveryList``: everything below ``/api`` or ``/apis`` in one answer."""
    groups = {"": ["v1"]} if core else registry.groups()
    items = []
    for name, versions in groups.items():
        listed = []
        for v in versions:
            resources = [
                _aggregated(r) for r in registry.all() if (r.group, r.version) == (name, v)
            ]
            listed.append({"version": v, "resources": resources, "freshness": "Current"})
        m = {"name": name} if name else {}
        items.append({"metadata": m | {"creationTimestamp": None}, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{api_version}",
        "metadata": {},
        "items": items,
    }


def _aggregated(r: Resource) -> Obj:
    out: Obj = {
        "resource": r.plural,
        "responseKind": {"group": r.group, "version": r.version, "kind": r.kind},
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular,
        "verbs": list(r.verbs),
    }
    if r.short_names:
        out["shortNames"] = list(r.short_names)
    if r.categories:
        out["categories"] = list(r.categories)
    subs = [
        {"subresource": s, "responseKind": _sub_kind(r, s), "verbs": list(_SUB_VERBS[s])}
        for s in _subresources(r)
    ]
    if subs:
        out["subresources"] = subs
    return out


OPENAPI_V3: Obj = {"paths": {}}
OPENAPI_V2: Obj = {
    "swagger": "2.0",
    "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
    "paths": {},
}


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited protobuf field of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(payload)]) + payload


# The same document as gnostic's openapi.v2.Document: swagger = 1, info = 2 {title 1, version 2},
# paths = 8. kubectl asks for protobuf first.
OPENAPI_V2_PROTOBUF = (
    _field(1, b"2.0")
    + _field(2, _field(1, b"Kubernetes") + _field(2, VERSION["gitVersion"].encode()))
    + _field(8, b"")
)
