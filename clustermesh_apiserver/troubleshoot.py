"""``troubleshoot`` of ``clustermesh-dbg`` and ``kvstoremesh-dbg``: is a store reached? Adapter.

Run in the containers whose ways they try.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from kvstore import ways
from kvstore.ways import Way

LOCAL = "(local)"  # no cluster has such a name


def local(path: str) -> list[Way]:
    """The ways to this cluster's own store. Raises ``LookupError``."""
    if not Path(path).exists():
        raise LookupError(f"there is no file {path}: run this in the container, or name another")
    return ways.of_file(LOCAL, Path(path))


def remote(directory: str, clusters: Sequence[str]) -> list[Way]:
    """The ways to other clusters' stores. Raises ``LookupError``."""
    if not Path(directory).is_dir():
        raise LookupError(
            f"there is no directory {directory}: run this in the container, or name another"
        )
    return ways.configured(Path(directory), clusters)


def report(found: Sequence[Way], timeout_s: float, how: str) -> None:
    """Try them and tell every step; exit 1 when one does not work."""
    rows = ways.examine(found, timeout_s)
    click.echo(json.dumps(rows) if how == "json" else ways.text(rows, verbose=True))
    if any(row["error"] for row in rows):
        sys.exit(1)
