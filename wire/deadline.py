"""Until when the asker of a change waits: who gets to it later must not do it any more. Pure.

A request lies in the queue of a process that is stopped or swamped, after its asker has given up,
reported that nothing was changed, and perhaps asked another. Sent as a header, in Unix seconds:
asker and asked share a machine, thus a clock.
"""

HEADER = "Isthmus-Deadline"


def header(deadline_s: float) -> dict[str, str]:
    """As a request carries it."""
    return {HEADER: f"{deadline_s:.3f}"}


def is_past(text: str | None, now_s: float) -> bool:
    """Whether nobody waits any more. Without a header, somebody does. Raises ``ValueError``."""
    if text is None:
        return False
    try:
        return now_s > float(text)
    except ValueError:
        raise ValueError(f"header {HEADER}: {text[:40]!r} is no time in Unix seconds") from None
