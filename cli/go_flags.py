"""Flags as tools written in Go take them: ``--follow=false`` beside ``--follow``. Adapter."""

import click

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class GoFlags(click.Command):
    """A command whose switches may be given a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.without_values(ctx, args))

    def without_values(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The same in the way that click knows; ``click.UsageError``: neither true nor false."""
        switches = {
            name: option
            for option in self.get_params(ctx)
            if isinstance(option, click.Option) and option.is_flag
            for name in option.opts
        }
        kept: list[str] = []
        for place, arg in enumerate(args):
            if arg == "--":
                return [*kept, *args[place:]]
            name, equals, value = arg.partition("=")
            if not equals or name not in switches:
                kept.append(arg)
            elif value in _TRUE:
                kept.append(name)
            elif value in _FALSE:
                kept += switches[name].secondary_opts[:1]
            else:
                raise click.UsageError(f"{name}: {value!r} is neither true nor false", ctx)
        return kept
