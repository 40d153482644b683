"""What the REST API answers about policy, from our values. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from model.labels import Labels
from model.policy_map import (
    ANY_IDENTITY,
    FULL_BITS,
    PROTOCOL_BITS,
    UNKNOWN_IDENTITY,
    Direction,
    PolicyEntry,
    PolicyKey,
)
from policy.known import Options
from policy.objects.notes import Finding
from policy.objects.read import Reading, Source
from policy.rules import CidrPeer, Operator, PolicyRule, Requirement, Selector

Rows = Mapping[PolicyKey, PolicyEntry]


def verdict(entry: PolicyEntry) -> str:
    """One word."""
    if entry.audit:
        return "audit"
    return "deny" if entry.deny else "allow"


def enforcement(rows: Rows | None) -> str:
    """``policy-enabled``: none, ingress, egress, both, or audit-… where it only is on paper."""
    base = {way: (rows or {}).get(PolicyKey(ANY_IDENTITY, way)) for way in Direction}
    real = [w for w, e in base.items() if rows is not None and (e is None or verdict(e) == "deny")]
    paper = [w for w, e in base.items() if e is not None and e.audit]
    for ways, prefix in ((real, ""), (paper, "audit-")):
        if ways:
            return prefix + ("both" if len(ways) == 2 else ways[0].name.lower())
    return "none"


def realized(rows: Rows | None, identity: int, revision: int, error: str) -> dict[str, Any]:
    """``EndpointPolicyStatus``'s ``realized``."""
    found: dict[str, list[int]] = {}
    for key, entry in (rows or {}).items():
        if key.identity not in (ANY_IDENTITY, UNKNOWN_IDENTITY):
            word = "denied" if entry.deny and not entry.audit else "allowed"
            name = f"{word}-{key.direction.name.lower()}-identities"
            found.setdefault(name, []).append(key.identity)
    shape: dict[str, Any] = {name: sorted(set(ids)) for name, ids in sorted(found.items())}
    shape |= {"id": identity, "policy-enabled": enforcement(rows), "policy-revision": revision}
    return shape | ({"error": error} if error else {})


def row(
    key: PolicyKey,
    entry: PolicyEntry,
    labels: Callable[[int], Labels | None],
    rule: Callable[[int], PolicyRule | None],
) -> dict[str, Any]:
    """One computed row. ``port-mask-bits``: how many bits of the port count."""
    known = labels(key.identity)
    origin = rule(entry.rule)
    return {
        "direction": key.direction.name.lower(),
        "identity": key.identity,
        "peer": _peer(key.identity),
        "labels": known.strings() if known is not None else [],
        "protocol": key.protocol if key.bits else 0,
        "port": key.port,
        "port-mask-bits": max(0, key.bits - PROTOCOL_BITS),
        "last-port": key.port + (1 << FULL_BITS - max(key.bits, PROTOCOL_BITS)) - 1,
        "verdict": verdict(entry),
        "rule": entry.rule,
        "policy": str(origin.origin) if origin is not None else "",
    }


def _peer(identity: int) -> str:
    return {ANY_IDENTITY: "anybody", UNKNOWN_IDENTITY: "unknown"}.get(identity, "")


def policy(
    source: Source, reading: Reading, generation: int, remarks: Iterable[Finding] = ()
) -> dict[str, Any]:
    """One policy object, and what it was read as; ``remarks``: what else is probably not meant."""
    return {
        "kind": source.kind.value,
        "namespace": source.namespace,
        "name": source.name,
        "uid": source.uid,
        "generation": generation,
        "valid": reading.valid,
        "audit": any(rule.audit for rule in reading.rules),
        "closes": any(rule.closed for rule in reading.rules),
        "errors": _findings(reading.errors),
        "warnings": _findings((*reading.warnings, *remarks)),
        "unenforced": _findings(reading.unenforced),
        "spec": source.spec,
        "specs": source.specs,
    }


def _findings(found: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"path": f.path, "reason": f.reason} for f in found]


def rule(number: int, found: PolicyRule) -> dict[str, Any]:
    """What a rule's number in verdicts and rows means."""
    origin = found.origin
    return {
        "number": number,
        "kind": origin.kind,
        "namespace": origin.namespace,
        "name": origin.name,
        "index": origin.index,
        "audit": found.audit,
        "labels": list(found.labels),
    }


def selector(who: Selector | CidrPeer, identities: Iterable[int], users: int) -> dict[str, Any]:
    """One entry of ``SelectorCache``."""
    return {
        "selector": selector_text(who),
        "identities": sorted(identities),
        "users": users,
        "labels": [],
    }


def selector_text(who: Selector | CidrPeer) -> str:
    """For people."""
    if isinstance(who, CidrPeer):
        holes = ", ".join(map(str, who.excepts))
        return f"cidr:{who.prefix}" + (f" except {holes}" if holes else "")
    return ", ".join(map(_requirement, who.requirements)) or "*"


def _requirement(r: Requirement) -> str:
    name = f"{r.source}:{r.key}"
    match r.operator:
        case Operator.EXISTS:
            return name
        case Operator.DOES_NOT_EXIST:
            return f"!{name}"
        case Operator.IN if len(r.values) == 1:
            return f"{name}={r.values[0]}"
        case _:
            return f"{name} {r.operator.value} ({', '.join(r.values)})"


def options(found: Options) -> dict[str, Any]:
    """``spec`` of the daemon's configuration, as far as policy goes."""
    return {"options": {}, "policy-enforcement": found.mode.value}
