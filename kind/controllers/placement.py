"""Which nodes a pod may run on, and which of them is best. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kind.apiserver.objects import Obj, condition, dicts, dig, labels_of
from kind.apiserver.selectors import match_labels
from kind.controllers.owned import controller_of, selects

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
HOSTNAME = "kubernetes.io/hostname"


def tolerates(tolerations: list[Obj], taint: Obj) -> bool:
    """Kubernetes' rule: empty key with Exists tolerates everything, empty effect any effect."""
    for t in tolerations:
        if t.get("effect") and t["effect"] != taint.get("effect"):
            continue
        if not t.get("key"):
            if t.get("operator") == "Exists":
                return True
            continue
        if t["key"] != taint.get("key"):
            continue
        if t.get("operator") == "Exists" or (t.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def taints_of(node: Obj) -> list[Obj]:
    """Those that keep pods away, with the one that stands for a node that is not ready."""
    found = [
        t
        for t in dicts(dig(node, "spec", "taints"))
        if t.get("effect") in ("NoSchedule", "NoExecute")
    ]
    if (condition(node, "Ready") or {}).get("status") != "True":
        found.append(NOT_READY)
    if dig(node, "spec", "unschedulable"):
        found.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    return found


def _term_matches(term: Obj, node: Obj) -> bool:
    labels: Mapping[str, str] = labels_of(node)
    for e in dicts(term.get("matchExpressions")):
        value, values = labels.get(str(e.get("key"))), e.get("values") or []
        match e.get("operator"):
            case "In":
                ok = value in values
            case "NotIn":
                ok = value not in values
            case "Exists":
                ok = value is not None
            case "DoesNotExist":
                ok = value is None
            case "Gt":
                ok = value is not None and int(value) > int(values[0])
            case "Lt":
                ok = value is not None and int(value) < int(values[0])
            case _:
                ok = False
        if not ok:
            return False
    for e in dicts(term.get("matchFields")):
        name = node["metadata"]["name"]
        if (name in (e.get("values") or [])) != (e.get("operator") == "In"):
            return False
    return bool(term.get("matchExpressions") or term.get("matchFields"))


def wants_node(spec: Obj, node: Obj) -> bool:
    """nodeSelector and required node affinity."""
    if not (spec.get("nodeSelector") or {}).items() <= labels_of(node).items():
        return False
    terms = dig(
        spec,
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    )
    return terms is None or any(_term_matches(t, node) for t in dicts(terms))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chosen node, or why there is none."""

    node: str = ""
    message: str = ""


def _domain(node: Obj, key: str) -> str:
    return node["metadata"]["name"] if key == HOSTNAME else labels_of(node).get(key, "")


def _affinity_ok(
    pod: Obj, node: Obj, nodes: Mapping[str, Obj], placed: list[tuple[Obj, str]], kind: str
) -> bool:
    terms = dicts(
        dig(pod, "spec", "affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution")
    )
    namespace = pod["metadata"].get("namespace")
    for term in terms:
        wanted = selects(term.get("labelSelector"))
        key = str(term.get("topologyKey") or HOSTNAME)
        spaces = term.get("namespaces") or [namespace]
        here = [
            other
            for other, at in placed
            if at in nodes
            and _domain(nodes[at], key) == _domain(node, key)
            and other["metadata"].get("namespace") in spaces
            and wanted is not None
            and match_labels(wanted, labels_of(other))
        ]
        if kind == "podAntiAffinity" and here:
            return False
        if (
            kind == "podAffinity"
            and not here
            and not (wanted is not None and match_labels(wanted, labels_of(pod)))
        ):
            return False
    return True


def choose(pod: Obj, nodes: Iterable[Obj], placed: list[tuple[Obj, str]]) -> Verdict:
    """The suitable node with the fewest pods of the same controller, then the fewest of all.

    Equals go by name.
    """
    spec = pod.get("spec") or {}
    by_name = {n["metadata"]["name"]: n for n in nodes}
    mine = (controller_of(pod) or {}).get("uid")
    siblings, counts = dict.fromkeys(by_name, 0), dict.fromkeys(by_name, 0)
    for other, at in placed:
        if at in counts:
            counts[at] += 1
            siblings[at] += mine is not None and (controller_of(other) or {}).get("uid") == mine
    reasons: dict[str, int] = {}
    fit = []
    for name, node in by_name.items():
        why = _refusal(pod, spec, node, by_name, placed)
        if why:
            reasons[why] = reasons.get(why, 0) + 1
        else:
            fit.append((siblings[name], counts[name], name))
    if fit:
        return Verdict(min(fit)[2])
    listed = ", ".join(f"{n} {why}" for why, n in sorted(reasons.items()))
    return Verdict(message=f"0/{len(by_name)} nodes are available: {listed or 'no nodes'}.")


def _refusal(
    pod: Obj, spec: Obj, node: Obj, nodes: Mapping[str, Obj], placed: list[tuple[Obj, str]]
) -> str:
    tolerations = dicts(spec.get("tolerations"))
    for taint in taints_of(node):
        if not tolerates(tolerations, taint):
            value = taint.get("value") or ""
            return f"node(s) had untolerated taint {{{taint['key']}: {value}}}"
    if not wants_node(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    for kind in ("podAntiAffinity", "podAffinity"):
        if not _affinity_ok(pod, node, nodes, placed, kind):
            return f"node(s) didn't match pod {'anti-' if 'Anti' in kind else ''}affinity rules"
    return ""
