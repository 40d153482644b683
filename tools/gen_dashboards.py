"""Write `deploy/dashboards/*.json`, Grafana's, from `tools/dashboards`.

``python -m tools.gen_dashboards``
"""

import json
import sys
from pathlib import Path
from typing import Any

from tools.dashboards.components import AGENT, MESH, OPERATOR, STORES
from tools.dashboards.flows import DNS, L7, NETWORK, OVERVIEW
from tools.dashboards.panels import Board, Panel

HERE = Path(__file__).resolve().parent.parent / "deploy" / "dashboards"
BOARDS = (OVERVIEW, DNS, L7, NETWORK, AGENT, OPERATOR, MESH, STORES)
Json = dict[str, Any]


def _matchers(board: Board) -> str:
    return ",".join(f'{name}=~"${name}"' for name in board.variables)


def _panel(board: Board, panel: Panel, number: int) -> Json:
    matchers = _matchers(board)
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    targets = [
        {
            "datasource": source,
            "expr": query.replace("%", matchers),
            "legendFormat": legend,
            "refId": chr(ord("A") + at),
        }
        for at, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "title": panel.title,
        "type": panel.kind,
        "datasource": source,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}},
        "targets": targets,
    }


def _variable(board: Board, name: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"},
        "query": {"query": f"label_values({board.source}, {name})", "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def made(board: Board) -> Json:
    """As Grafana reads it."""
    return {
        "title": board.title,
        "uid": "isthmus-" + board.file.removesuffix(".json"),
        "tags": ["isthmus", "cilium"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "DS_PROMETHEUS", "type": "datasource", "query": "prometheus"},
                *(_variable(board, name) for name in board.variables),
            ]
        },
        "panels": [_panel(board, panel, at) for at, panel in enumerate(board.panels)],
    }


def text(board: Board) -> str:
    """Of its file."""
    return json.dumps(made(board), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for one in BOARDS:
        (HERE / one.file).write_text(text(one))
    sys.exit(0)
