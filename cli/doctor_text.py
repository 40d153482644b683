"""The doctor's findings for people and for scripts. Pure."""

from collections.abc import Sequence
from typing import Any

from datapath.doctor import Fact

HEADER = ("Check", "Result", "Found", "Remedy")


def result(fact: Fact) -> str:
    """``ok``; ``warning`` for what works less well; ``failed`` for what stops everything."""
    if fact.ok:
        return "ok"
    return "failed" if fact.blocking else "warning"


def blocked(facts: Sequence[Fact]) -> bool:
    """Must something be mended first?"""
    return any(fact.blocking and not fact.ok for fact in facts)


def rows(facts: Sequence[Fact]) -> list[list[str]]:
    """One row per check."""
    return [[fact.name, result(fact), fact.detail, fact.remedy] for fact in facts]


def summary(facts: Sequence[Fact]) -> str:
    """The last line."""
    results = [result(fact) for fact in facts]
    if not blocked(facts):
        warnings = results.count("warning")
        return f"This machine can run Isthmus ({len(facts)} checks, {warnings} warnings)"
    names = ", ".join(fact.name for fact in facts if result(fact) == "failed")
    return f"This machine cannot run Isthmus yet: {names}"


def as_objects(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """For ``-o json``."""
    return [
        {
            "name": fact.name,
            "ok": fact.ok,
            "result": result(fact),
            "detail": fact.detail,
            "remedy": fact.remedy,
            "blocking": fact.blocking,
        }
        for fact in facts
    ]
