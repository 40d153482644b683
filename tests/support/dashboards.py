"""The queries of the dashboards that we ship."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

FILES = Path(__file__).resolve().parents[2] / "deploy" / "dashboards"


def queries(window: str = "3m") -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and query, with all variables at *All*."""
    for path in sorted(FILES.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", window)
                yield path.stem, panel["title"], re.sub(r"\$\w+", ".*", query)
