"""One fault of a mesh: what was found, and what mends it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

HEADER = ("Check", "Result", "Found", "Remedy")


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault. ``blocking``: clusters must not be connected, or do not work, until it is mended."""

    check: str  # which rule: a word for scripts
    clusters: tuple[str, ...]
    found: str  # names the object
    remedy: str  # one line
    blocking: bool = True

    @property
    def result(self) -> str:
        """As ``isthmus doctor`` says it."""
        return "failed" if self.blocking else "warning"

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


def sentence(check: str, cluster: str, text: str, more: str = "") -> Finding:
    """Of a sentence that ends in ``: remedy``; ``more`` is added to the remedy."""
    found, _, remedy = text.rpartition(": ")
    return Finding(check, (cluster,), found or text, f"{remedy}{more}")


def blocked(findings: Iterable[Finding]) -> bool:
    """Must something be mended first?"""
    return any(finding.blocking for finding in findings)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Each once, the blocking ones first, else in the order of finding."""
    once = list(dict.fromkeys(findings))
    return [f for f in once if f.blocking] + [f for f in once if not f.blocking]


def rows(findings: Sequence[Finding]) -> list[list[str]]:
    """One row per finding."""
    return [[f.check, f.result, f.found, f.remedy] for f in findings]


def summary(findings: Sequence[Finding], clusters: Sequence[str]) -> str:
    """The last line."""
    who = ", ".join(clusters) or "no cluster"
    failed = sum(f.blocking for f in findings)
    warnings = len(findings) - failed
    if not findings:
        return f"✅ Nothing was found in {who}"
    if not failed:
        return f"⚠️  {_count(warnings, 'warning')} in {who}, nothing that stops the mesh"
    return f"❌ {_count(failed, 'fault')} and {_count(warnings, 'warning')} in {who}"


def as_json(findings: Sequence[Finding], clusters: Sequence[str]) -> dict[str, Any]:
    """For ``-o json``."""
    return {
        "clusters": list(clusters),
        "blocked": blocked(findings),
        "findings": [
            {
                "check": f.check,
                "result": f.result,
                "blocking": f.blocking,
                "clusters": list(f.clusters),
                "found": f.found,
                "remedy": f.remedy,
            }
            for f in findings
        ],
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
