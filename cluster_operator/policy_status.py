"""What is said of a policy in its status: whether it is valid and enforced, and why not. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from policy.known import Mode
from policy.objects.notes import Finding
from policy.objects.read import Reading
from wire.k8s.meta import Condition
from wire.k8s.policy import PolicyObject

TYPE = "Valid"
FINE = "Policy validation succeeded"
ENFORCED = "Enforced"
MAX_MESSAGE = 4096  # characters


def message(reading: Reading) -> str:
    """All errors; of a valid policy what is not enforced."""
    if reading.errors:
        return _shortened(reading.errors, "")
    if reading.unenforced:
        paths = ", ".join(dict.fromkeys(finding.path for finding in reading.unenforced))
        return f"{FINE}; not enforced yet, and denied: {paths}"[:MAX_MESSAGE]
    return FINE


def _shortened(findings: Sequence[Finding], text: str) -> str:
    for number, finding in enumerate(findings):
        more = f"{'; ' if text else ''}{finding}"
        if text and len(text) + len(more) > MAX_MESSAGE - 40:
            return f"{text}; and {len(findings) - number} more"
        text += more[:MAX_MESSAGE]
    return text


def enforcement(reading: Reading, mode: Mode, judges_nodes: bool) -> tuple[str, str, str]:
    """Status, reason and message: what the agents of the cluster do with it."""
    if mode is Mode.NEVER:
        return "False", "Disabled", "enable-policy is never: what it forbids passes"
    if reading.errors:
        closes = any(rule.closed and not rule.audit for rule in reading.rules)
        text = "nothing passes to and from what it may select" if closes else "it is left out"
        return "False", "Invalid", f"it is not valid: {text}"
    if any(rule.on_nodes for rule in reading.rules) and not judges_nodes:
        return "False", "Disabled", "enable-host-firewall is false: rules for nodes forbid nothing"
    if any(rule.audit for rule in reading.rules):
        return "False", "Audit", "it is in audit: what it forbids passes and is reported"
    if reading.unenforced:
        return "False", "Partly", "some of its fields are not enforced yet; their traffic is denied"
    return "True", "Enforced", "agents enforce it at the pods and nodes it selects"


def conditions(
    known: PolicyObject,
    reading: Reading,
    now: str,
    mode: Mode = Mode.DEFAULT,
    judges_nodes: bool = False,
) -> list[dict[str, Any]] | None:
    """The whole list as it is to be, ``None`` if it is so. A time changes with its status only."""
    before = (known.status.conditions if known.status else None) or []
    status = "True" if reading.valid else "False"
    reason = "Validated" if reading.valid else "Invalid"
    wanted = (
        _said(known, before, TYPE, status, reason, message(reading), now),
        _said(known, before, ENFORCED, *enforcement(reading, mode, judges_nodes), now),
    )
    if all(condition in before for condition in wanted):
        return None
    others = [c for c in before if c.type not in (TYPE, ENFORCED)]
    return [msgspec.to_builtins(c) for c in (*others, *wanted)]


def _said(
    known: PolicyObject,
    before: Sequence[Condition],
    type_: str,
    status: str,
    reason: str,
    text: str,
    now: str,
) -> Condition:
    old = next((c for c in before if c.type == type_), None)
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=text,
        observed_generation=known.metadata.generation,
        last_transition_time=(
            old.last_transition_time if old is not None and old.status == status else now
        ),
    )
