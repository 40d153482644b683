"""``isthmus doctor`` and ``isthmus version``. Adapter."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import click

from cli import output, rest

if TYPE_CHECKING:
    from datapath.doctor import Fact

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def look() -> "list[Fact]":
    """All checks; what cannot even be imported is told in one line."""
    try:
        from cli import doctor_checks
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the Python package {error.name} is missing: run `make setup`"
        ) from error
    return doctor_checks.everything()


@click.command()
@output.option
def doctor(how: str) -> None:
    """Can this machine run it? Exit 1 when something must be mended first."""
    report(look, how)


def report(checks: "Callable[[], Sequence[Fact]]", how: str) -> None:
    """Print what the checks found; leaves with 1 on a blocking one."""
    from cli import doctor_text

    facts = checks()
    if how == "json":
        click.echo(output.as_json(doctor_text.as_objects(facts)))
    else:
        rows = doctor_text.rows(facts)
        if sys.stdout.isatty():
            _print_rich(doctor_text.HEADER, rows)
        else:
            click.echo(output.table([doctor_text.HEADER, *rows]))
        click.echo(doctor_text.summary(facts))
    if doctor_text.blocked(facts):
        sys.exit(1)


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="isthmus doctor")
    for name in header:
        table.add_column(name, overflow="fold")
    for name, result, detail, remedy in rows:
        table.add_row(name, Text(result, style=_COLOURS[result]), Text(detail), Text(remedy))
    Console().print(table)


@click.command()
@rest.option
@output.option
def version(host: str, how: str) -> None:
    """Versions of the parts: this command's, the agent's, the kernel's."""
    parts = {"Client": metadata.version("isthmus")}
    try:
        state = rest.get(host, "healthz").get("cilium") or {}
        parts["Daemon"] = str(state.get("msg") or state.get("state") or "does not say")
    except rest.AgentUnreachableError:
        parts["Daemon"] = f"does not answer at {host}"
    kernel = os.uname()
    parts["Kernel"] = f"{kernel.sysname} {kernel.release} {kernel.machine}"
    parts["Python"] = sys.version.split()[0]
    if how == "json":
        click.echo(output.as_json({name.lower(): text for name, text in parts.items()}))
    else:
        click.echo("\n".join(f"{name}: {text}" for name, text in parts.items()))
