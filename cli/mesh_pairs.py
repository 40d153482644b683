"""Which clusters a command joins or parts, and how it says so. Pure."""

from collections.abc import Sequence
from itertools import combinations

MODES = ("unicast", "bidirectional", "mesh")


def named(destinations: Sequence[str]) -> list[str]:
    """The names of repeated and comma-separated options. Raises ``ValueError``."""
    found = [name for text in destinations for name in text.split(",") if name]
    if not found:
        raise ValueError("--destination-context is empty: name a kubeconfig context")
    twice = next((name for name in found if found.count(name) > 1), "")
    if twice:
        raise ValueError(f"--destination-context {twice} is named twice: name it once")
    return found


def pairs(count: int, mode: str) -> list[tuple[int, int]]:
    """Which clusters are joined; the first is the local one."""
    if mode == "mesh":
        return list(combinations(range(count), 2))
    return [(0, other) for other in range(1, count)]


def done(verb: str, names: Sequence[str], mode: str, both: str, one: str) -> list[str]:
    """The last lines of connect and disconnect."""
    first, *others = names
    if mode == "mesh":
        return [f"✅ {verb} clusters {', '.join(others)}, and {first}!"]
    arrow = both if mode == "bidirectional" else one
    return [f"✅ {verb} cluster {first} {arrow} {other}!" for other in others]
