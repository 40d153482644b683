"""``isthmus bpf``: what the pinned maps hold. Adapter; needs root, and no agent."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli import bpf_policy, bpf_text, output
from cli.bpf_options import pins, readable
from datapath import inspect

F = TypeVar("F", bound=Callable[..., Any])


def _show(header: tuple[str, ...], texts: bpf_text.Texts, how: str) -> None:
    rows = bpf_text.rows(header, texts)
    click.echo(output.as_json(texts) if how == "json" else output.table(rows))


@click.group()
def bpf() -> None:
    """Tables in the kernel."""


bpf.add_command(bpf_policy.policy)


@bpf.group()
def ipcache() -> None:
    """Addresses and their identities."""


@ipcache.command("list")
@pins
@output.option
def ipcache_list(pin_dir: Path, how: str) -> None:
    """All prefixes."""
    with readable():
        found = inspect.ipcache(pin_dir)
    _show(bpf_text.IPCACHE_HEADER, bpf_text.ipcache(found), how)


@bpf.group()
def endpoint() -> None:
    """Addresses that are delivered on this node."""


@endpoint.command("list")
@pins
@output.option
def endpoint_list(pin_dir: Path, how: str) -> None:
    """Pods, and the host's own addresses."""
    with readable():
        found = inspect.endpoints(pin_dir)
    _show(bpf_text.ENDPOINT_HEADER, bpf_text.endpoints(found), how)


@bpf.group()
def lb() -> None:
    """Services and backends."""


@lb.command("list")
@pins
@output.option
@click.option("--frontends", "part", flag_value="frontends", help="Frontends only.")
@click.option("--backends", "part", flag_value="backends", help="Backends by number.")
@click.option("--revnat", "part", flag_value="revnat", help="Reverse translations by number.")
def lb_list(pin_dir: Path, how: str, part: str | None) -> None:
    """Frontends with their slots."""
    with readable():
        if part == "backends":
            texts = bpf_text.backends(inspect.backends(pin_dir))
            header: tuple[str, ...] = ("ID", "BACKEND ADDRESS")
        elif part == "revnat":
            texts = bpf_text.reverse_translations(inspect.reverse_translations(pin_dir))
            header = ("ID", "FRONTEND ADDRESS")
        else:
            texts = bpf_text.services(inspect.services(pin_dir), part == "frontends")
            header = bpf_text.LB_HEADER
    _show(header, texts, how)


@bpf.group()
def ct() -> None:
    """Connections."""


@ct.command("list")
@pins
@output.option
@click.argument("scope", type=click.Choice(["global"]), default="global", metavar="[global]")
@click.option("-d", "--time-diff", is_flag=True, help="Also how long an entry has still to live.")
def ct_list(pin_dir: Path, how: str, scope: str, time_diff: bool) -> None:
    """All entries, those that expired and are not yet collected too."""
    del scope  # there is one table for all endpoints
    with readable():
        found = inspect.flows(pin_dir)
    if how == "json":
        click.echo(output.as_json([bpf_text.flow_json(entry) for entry in found]))
        return
    now_s = int(time.monotonic()) if time_diff else None
    for entry in found:
        click.echo(bpf_text.flow(entry, now_s))


@bpf.group()
def metrics() -> None:
    """Packets forwarded and dropped."""


@metrics.command("list")
@pins
@output.option
def metrics_list(pin_dir: Path, how: str) -> None:
    """Counters by reason, direction and place in the programs."""
    with readable():
        found = inspect.counters(pin_dir)
    if how == "json":
        click.echo(output.as_json([bpf_text.counter_json(c) for c in found]))
    else:
        click.echo(output.table(bpf_text.counters(found)))
