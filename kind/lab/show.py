"""A lab's report as tables for people. Adapter."""

from typing import Any

from rich.console import Console
from rich.table import Table

from kind.lab.report import Report

PLAIN_WIDTH = 220  # for files and pipes, which have none of their own

COLUMNS = {
    "nodes": ("cluster", "name", "address", "podCIDR", "ready"),
    "processes": ("node", "name", "pid", "state", "restarts"),
    "pods": ("cluster", "namespace", "name", "node", "ip", "phase", "ready", "restarts"),
}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def report(found: Report) -> None:
    """Print all of it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    lab = found.lab
    console.print(f"lab {lab['name']}, started {lab['created']} by {lab['by']}")
    console.print(f"KUBECONFIG={lab['kubeconfig']}", soft_wrap=True)
    for name, columns in COLUMNS.items():
        rows: list[dict[str, Any]] = getattr(found, name)
        table = Table(title=name, title_justify="left", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column.upper(), overflow="fold")
        for row in sorted(rows, key=lambda item: [str(item[column]) for column in columns]):
            table.add_row(*(_text(row[column]) for column in columns))
        console.print(table)
    for problem in found.problems:
        console.print(f"problem: {problem}", soft_wrap=True)
    console.print("healthy" if not found.problems else "NOT healthy")
