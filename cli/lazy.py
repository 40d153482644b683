"""A group that knows its commands' names and imports one when it is asked for. Adapter.

So `--help` is quick, and a command does not pay for what others need.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class Lazy(NamedTuple):
    """A command that is not loaded yet."""

    module: str
    name: str  # in the module
    text: str  # one line of help; empty: not listed


class LazyGroup(click.Group):
    """``lazy``: its commands by name, besides those that are added."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, Lazy], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        shown = (name for name, known in self._lazy.items() if known.text)
        return sorted([*shown, *super().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = self._lazy.get(cmd_name)
        if known is None:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(known.module), known.name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is no command")
        return command

    def help_of(self, ctx: click.Context, name: str) -> str:
        """One line; empty: nothing is said of it."""
        known = self._lazy.get(name)
        if known is not None:
            return known.text
        command = super().get_command(ctx, name)
        return "" if command is None or command.hidden else command.get_short_help_str(80)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.help_of(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([row for row in rows if row[1]])
