"""Label and field selectors as the API writes them. Pure.

Grammar of labels: ``a=b,a==b,a!=b,a in (x,y),a notin (x),a,!a``; of fields: ``a=b,a==b,a!=b``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from kind.apiserver.errors import bad_request
from kind.apiserver.objects import Obj, dicts, dig, labels_of

_SET = re.compile(r"^(!?)\s*([^\s=!,()]+)\s+(in|notin)\s*\(([^()]*)\)$")
_EQUAL = re.compile(r"^([^\s=!,()]+)\s*(==|=|!=)\s*([^\s=!,()]*)$")
_EXISTS = re.compile(r"^(!?)\s*([^\s=!,()]+)$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: ``op`` is ``in``, ``notin``, ``exists`` or ``absent``."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.op:
            case "in":
                return labels.get(self.key) in self.values
            case "notin":
                return self.key not in labels or labels[self.key] not in self.values
            case "exists":
                return self.key in labels
            case _:
                return self.key not in labels


def _terms(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    out, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            out.append(text[start:i])
            start = i + 1
    out.append(text[start:])
    return [t.strip() for t in out]


@lru_cache(maxsize=512)
def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Raises ``ApiError`` 400 naming the term that does not parse."""
    out = []
    for term in _terms(text):
        if not term:
            continue
        if found := _SET.match(term):
            values = frozenset(v.strip() for v in found[4].split(","))
            out.append(Requirement(found[2], found[3], values))
        elif found := _EQUAL.match(term):
            op = "notin" if found[2] == "!=" else "in"
            out.append(Requirement(found[1], op, frozenset([found[3]])))
        elif found := _EXISTS.match(term):
            out.append(Requirement(found[2], "absent" if found[1] else "exists"))
        else:
            raise bad_request(f'unable to parse requirement: "{term}" is no label selector term')
    return tuple(out)


def match_labels(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Every term holds."""
    return all(r.matches(labels) for r in requirements)


def parse_label_selector(selector: Obj | None) -> tuple[Requirement, ...] | None:
    """A ``LabelSelector`` object; ``None`` selects nothing, an empty one everything."""
    if selector is None:
        return None
    out = [
        Requirement(k, "in", frozenset([v])) for k, v in (selector.get("matchLabels") or {}).items()
    ]
    words = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    for e in dicts(selector.get("matchExpressions")):
        op = words.get(str(e.get("operator")))
        if op is None:
            raise bad_request(f'"{e.get("operator")}" is not a valid label selector operator')
        out.append(Requirement(str(e.get("key")), op, frozenset(e.get("values") or [])))
    return tuple(out)


# Fields the API lets a client select on, beyond metadata.name and metadata.namespace.
_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "secrets": frozenset({"type"}),
    "namespaces": frozenset({"status.phase"}),
    "jobs": frozenset({"status.successful"}),
    "replicasets": frozenset({"status.replicas"}),
    "events": frozenset(
        {
            f"involvedObject.{f}"
            for f in (
                "kind",
                "namespace",
                "name",
                "uid",
                "apiVersion",
                "resourceVersion",
                "fieldPath",
            )
        }
        | {f"regarding.{f}" for f in ("kind", "namespace", "name", "uid")}
        | {"reason", "reportingComponent", "source", "type"}
    ),
}


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One field with the value it must (not) have."""

    path: tuple[str, ...]
    equal: bool
    value: str

    def matches(self, obj: Obj) -> bool:
        found = dig(obj, *self.path)
        if self.path == ("source",):
            found = dig(obj, "source", "component")
        if isinstance(found, bool):
            text = "true" if found else "false"
        else:
            text = "" if found is None else str(found)
            if not text and self.value in ("true", "false"):
                text = "false"  # an absent boolean
        return (text == self.value) == self.equal


def parse_fields(text: str, plural: str) -> tuple[FieldTerm, ...]:
    """Raises ``ApiError`` 400 for a field the resource does not offer."""
    out = []
    allowed = _FIELDS.get(plural, frozenset())
    for term in _terms(text):
        if not term:
            continue
        found = re.match(r"^([^=!]+?)\s*(==|=|!=)\s*(.*)$", term)
        if not found:
            raise bad_request(f'invalid field selector "{term}": can\'t understand it')
        field = found[1].strip()
        if field not in ("metadata.name", "metadata.namespace") and field not in allowed:
            raise bad_request(f'field label not supported: "{field}"')
        out.append(FieldTerm(tuple(field.split(".")), found[2] != "!=", found[3]))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch asks for: namespace, labels and fields together."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.namespace or self.labels or self.fields)

    def matches(self, obj: Obj) -> bool:
        if self.namespace and obj["metadata"].get("namespace") != self.namespace:
            return False
        if self.labels and not match_labels(self.labels, labels_of(obj)):
            return False
        return all(f.matches(obj) for f in self.fields)


Matcher = Callable[[Obj], bool]
