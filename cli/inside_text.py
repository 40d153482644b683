"""The agent's lists as rows of columns. Pure: answers of the REST API in, rows out.

A field that an older or newer agent leaves out is an empty cell, never an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.output import continued, place_text

Object = Mapping[str, Any]

_ENFORCED = {
    "none": ("Disabled", "Disabled"),
    "ingress": ("Enabled", "Disabled"),
    "egress": ("Disabled", "Enabled"),
    "both": ("Enabled", "Enabled"),
    "audit-ingress": ("Disabled (Audit)", "Disabled"),
    "audit-egress": ("Disabled", "Disabled (Audit)"),
    "audit-both": ("Disabled (Audit)", "Disabled (Audit)"),
}
_ENDPOINT_HEADERS = (
    (
        *("ENDPOINT", "POLICY (ingress)", "POLICY (egress)", "IDENTITY"),
        *("LABELS (source:key[=value])", "IPv6", "IPv4", "STATUS"),
    ),
    ("", "ENFORCEMENT", "ENFORCEMENT", "", "", "", "", ""),
)
_LABELS = 4  # column


def endpoints(found: Iterable[Object], headers: bool = True) -> list[list[str]]:
    """``endpoint list``: further labels stand on lines of their own."""
    rows = [list(row) for row in _ENDPOINT_HEADERS] if headers else []
    for item in found:
        status = item.get("status") or {}
        labels = _security_labels(item)
        pairs = (status.get("networking") or {}).get("addressing") or [{}]
        realized = (status.get("policy") or {}).get("realized") or {}
        first = [
            str(item.get("id", "")),
            *_ENFORCED.get(realized.get("policy-enabled", "none"), ("", "")),
            str((status.get("identity") or {}).get("id", "")),
            labels[0] if labels else "no labels",
            str(pairs[0].get("ipv6", "")),
            str(pairs[0].get("ipv4", "")),
            str(status.get("state", "")),
        ]
        rows += continued(first, _LABELS, labels[1:])
    return rows


def _security_labels(endpoint: Object) -> list[str]:
    labels = (endpoint.get("status") or {}).get("labels") or {}
    return list(labels.get("security-relevant") or [])


def with_labels(found: Iterable[Object], wanted: Sequence[str]) -> list[Object]:
    """The endpoints that carry every one of the labels, given with or without their source."""
    kept = []
    for item in found:
        labels = _security_labels(item)
        names = {*labels, *(label.partition(":")[2] for label in labels)}
        if names.issuperset(wanted):
            kept.append(item)
    return kept


def endpoint_health(found: Object) -> list[list[str]]:
    """``endpoint health``."""
    connected = "yes" if found.get("connected") else "no"
    return [
        ["Overall Health:", str(found.get("overallHealth", ""))],
        ["BPF Health:", str(found.get("bpf", ""))],
        ["Policy Health:", str(found.get("policy", ""))],
        ["Connected:", connected],
    ]


def _labels(identity: Object) -> list[str]:
    return list(identity.get("labels") or []) or ["no labels"]


def identities(found: Iterable[Object]) -> list[list[str]]:
    """``identity list``."""
    rows = [["ID", "LABELS (source:key[=value])"]]
    for item in found:
        labels = _labels(item)
        rows += continued([str(item.get("id", "")), labels[0]], 1, labels[1:])
    return rows


def identity_uses(found: Iterable[Object]) -> list[list[str]]:
    """``identity list --endpoints``: how many endpoints of this node use each."""
    rows = [["ID", "LABELS (source:key[=value])", "REFCOUNT"]]
    for item in found:
        identity = item.get("identity") or {}
        labels = _labels(identity)
        first = [str(identity.get("id", "")), labels[0], str(item.get("refCount", ""))]
        rows += continued(first, 1, labels[1:])
    return rows


def ips(
    found: Iterable[Object], labels: Mapping[int, Sequence[str]], verbose: bool
) -> list[list[str]]:
    """``ip list``: identities by their labels where ``labels`` has them, else by number."""
    rows = [["IP", "IDENTITY", "SOURCE"]]
    if verbose:
        rows[0] += ["HOST", "ENCRYPT_KEY", "CLUSTER", "POD"]
    for item in found:
        number = item.get("identity", "")
        named = list(labels.get(number) or [str(number)])
        meta = item.get("metadata") or {}
        first = [str(item.get("cidr", "")), named[0], str(meta.get("source", ""))]
        if verbose:
            first += [
                str(item.get("hostIP", "")),
                str(item.get("encryptKey", 0)),
                str(meta.get("cluster", "")),
                "/".join(p for p in (meta.get("namespace"), meta.get("name")) if p),
            ]
        rows += continued(first, 1, named[1:])
    return rows


def services(
    found: Iterable[Object], affinity: bool = False, verbose: bool = False
) -> list[list[str]]:
    """``service list``: ``affinity`` marks preferred backends, ``verbose`` names their clusters."""
    rows = [["ID", *(["Name"] if verbose else []), "Frontend", "Service Type", "Backend"]]
    for item in found:
        spec = item.get("spec") or {}
        flags = spec.get("flags") or {}
        front = spec.get("frontend-address") or {}
        backends = [
            f"{place} => {_backend(backend, affinity, verbose)}"
            for place, backend in enumerate(spec.get("backend-addresses") or [], 1)
        ]
        first = [
            str(spec.get("id", "")),
            *([f"{flags.get('namespace', '')}/{flags.get('name', '')}"] if verbose else []),
            _place(front) + ("/i" if front.get("scope") == "internal" else ""),
            str(flags.get("type", "")),
            backends[0] if backends else "",
        ]
        rows += continued(first, len(first) - 1, backends[1:])
    return rows


def _place(item: Object) -> str:
    return place_text(item.get("ip", ""), item.get("port", 0), item.get("protocol", "any"))


def _backend(item: Object, affinity: bool, verbose: bool) -> str:
    text = f"{_place(item)} ({item.get('state', 'active')})"
    if affinity and item.get("preferred"):
        text += " (preferred)"
    if verbose:
        where = "/".join(p for p in (item.get("cluster"), item.get("nodeName")) if p)
        text += f" {where}" if where else ""
        if item.get("weight"):
            text += f", weight {item['weight']}"
        if item.get("selectable") is False:
            text += ", not for new connections"
    return text


def nodes(found: Iterable[Object]) -> list[list[str]]:
    """``node list``."""
    rows = [["Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR", "Source"]]
    for item in found:
        primary = item.get("primary-address") or {}
        row = [str(item.get("name", ""))]
        for family in ("ipv4", "ipv6"):
            address = primary.get(family) or {}
            row += [str(address.get("ip", "")), str(address.get("alloc-range", ""))]
        rows.append([*row, str(item.get("source", ""))])
    return rows
