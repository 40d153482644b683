"""Words that the commands about policy share. Pure."""

from typing import Any

from model.identity import RESERVED_NAMES, ReservedIdentity
from model.labels import Labels
from policy.explain import who_text
from policy.oracle import Verdict
from policy.rules import Origin
from policy.selectors import is_inner, prefix_of

WORDS = {
    Verdict.ALLOWED: "allowed",
    Verdict.AUDITED: "audited",
    Verdict.DROPPED: "dropped",
    Verdict.DENIED: "denied",
}


def names_of(labels: Labels, number: int) -> str:
    """An identity for people: its name, or its labels."""
    if number in ReservedIdentity.__members__.values():
        return RESERVED_NAMES[ReservedIdentity(number)]
    if is_inner(labels):
        return f"pods or nodes in {prefix_of(labels)}"
    return who_text(labels) or str(number)


def origin_json(origin: Origin | None) -> dict[str, Any] | None:
    """For scripts."""
    if origin is None:
        return None
    about = {"kind": origin.kind, "namespace": origin.namespace, "name": origin.name}
    return about | {"index": origin.index}


def turn_json(
    before: Verdict, after: Verdict, by: Origin | None, then_by: Origin | None
) -> dict[str, Any]:
    """A verdict that changes, for scripts."""
    return {
        "before": WORDS[before],
        "after": WORDS[after],
        "ruleBefore": origin_json(by),
        "ruleAfter": origin_json(then_by),
    }


def turn_text(before: Verdict, after: Verdict, by: Origin | None, then_by: Origin | None) -> str:
    """A verdict that changes, for people."""
    said = [WORDS[v] + (f" ({o})" if o else "") for v, o in ((before, by), (after, then_by))]
    return " -> ".join(said)
