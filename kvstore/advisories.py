"""What is known of etcd's versions that weakens the read-only role of other clusters. Pure."""

from enum import Enum


class Weakness(Enum):
    """The value is the sentence for the log: what it means, and the remedy."""

    NESTED = (
        "but for the front, any connected cluster could read and write every key by a transaction "
        "inside a transaction (GHSA-rfx7-8w68-q57q): run etcd 3.4.42, 3.5.28, 3.6.9 or later"
    )
    WATCH_ON = (
        "but for the front, any connected cluster could watch every key that comes after one it "
        "may read (GHSA-xg4h-6gfc-h4m8): run etcd 3.5.33, 3.6.14, 3.7.1 or later"
    )


_MENDED: dict[Weakness, dict[tuple[int, int], int]] = {
    Weakness.NESTED: {(3, 4): 42, (3, 5): 28, (3, 6): 9},
    Weakness.WATCH_ON: {(3, 5): 33, (3, 6): 14, (3, 7): 1},
}


def weaknesses(version: str) -> tuple[Weakness, ...]:
    """Those of a version such as ``3.4.23``; all of them for one that cannot be read."""
    try:
        major, minor, patch = (int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return tuple(Weakness)
    found = []
    for weakness, lines in _MENDED.items():
        newer = (major, minor) > max(lines)
        if not newer and patch < lines.get((major, minor), patch + 1):
            found.append(weakness)
    return tuple(found)
