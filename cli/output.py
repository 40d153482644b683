"""How listings look: columns as the well-known tools print them, or JSON. Pure.

Three blanks between columns and at least five characters each; the last column is not padded, so
that no line ends in blanks.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Row = Sequence[str]

GAP = 3
MIN_WIDTH = 5


def option(function: F) -> F:
    """``-o table|json``."""
    return click.option(
        "-o",
        "--output",
        "how",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to print.",
    )(function)


def table(rows: Sequence[Row], min_width: int = MIN_WIDTH) -> str:
    """Aligned columns, one line per row. Rows may be of different lengths."""
    count = max((len(row) for row in rows), default=0)
    widths = [
        max([min_width, *(len(row[column]) + GAP for row in rows if column < len(row) - 1)])
        for column in range(count)
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )


def continued(first: Sequence[str], column: int, further: Sequence[str]) -> list[list[str]]:
    """A row whose cell in ``column`` has more lines: they stand alone below it."""
    blank = [""] * len(first)
    return [list(first), *([*blank[:column], text, *blank[column + 1 :]] for text in further)]


def as_json(value: object) -> str:
    """For scripts."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def place_text(address: str, port: int, protocol: str) -> str:
    """``10.0.0.1:80/TCP``; IPv6 addresses in brackets."""
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}/{protocol.upper()}"
