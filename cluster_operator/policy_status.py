"""What is said of a policy in its status: whether it is valid, and why not. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from policy.objects.notes import Finding
from policy.objects.read import Reading
from wire.k8s.meta import Condition
from wire.k8s.policy import PolicyObject

TYPE = "Valid"
FINE = "Policy validation succeeded"
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


def conditions(known: PolicyObject, reading: Reading, now: str) -> list[dict[str, Any]] | None:
    """The whole list as it is to be, ``None`` if it is so. A time changes with its status only."""
    before = (known.status.conditions if known.status else None) or []
    ours = next((c for c in before if c.type == TYPE), None)
    status = "True" if reading.valid else "False"
    said = Condition(
        type=TYPE,
        status=status,
        reason="Validated" if reading.valid else "Invalid",
        message=message(reading),
        observed_generation=known.metadata.generation,
        last_transition_time=(
            ours.last_transition_time if ours is not None and ours.status == status else now
        ),
    )
    if ours == said:
        return None
    others = [c for c in before if c.type != TYPE]
    return [msgspec.to_builtins(c) for c in (*others, said)]
