"""The page about the command line tells what there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli import main

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
EVERYWHERE = {"--help", "--context", "--kubeconfig", "--namespace", "--host", "--pin-dir"}


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))
    else:
        yield " ".join(path), command


ALL = list(commands(main.isthmus, ("isthmus",)))


@pytest.mark.parametrize(("name", "command"), ALL, ids=[name for name, _ in ALL])
def test_every_option_is_told(name: str, command: click.Command) -> None:
    """Each command has its row, and the row or the text above it names each visible option."""
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"docs/cli.md has {len(rows)} rows for {name}"
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            long = [text for text in option.opts if text.startswith("--")]
            known = PAGE if name.startswith("isthmus hubble") else rows[0]
            if set(long) & (EVERYWHERE | {"--output"}):
                known = PAGE
            assert any(f"{text}`" in known or f"{text} " in known for text in long), long


def test_no_row_without_a_command() -> None:
    """What the page names exists."""
    told = set(re.findall(r"^\| `(isthmus [a-z -]+)` \|", PAGE, re.M))
    assert told == {name for name, _ in ALL}
