"""``isthmus troubleshoot clustermesh``: does this node reach other clusters' stores? Adapter.

Runs on a node. ``clustermesh doctor`` executes it in agents' containers, so that a way is tried
from where it will be used and not from a workstation.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from cli import output, rest

CONFIG = "/var/lib/cilium/clustermesh/"


@click.group()
def troubleshoot() -> None:
    """Find out why a connection fails."""


@troubleshoot.command()
@rest.option
@click.argument("clusters", nargs=-1)
@click.option("--clustermesh-config", "directory", default=CONFIG, show_default=True)
@click.option("--timeout", default="5s", show_default=True, help="For one endpoint.")
@click.option("-v", "--verbose", is_flag=True, help="Every step, also without named clusters.")
@click.option("--reach", multiple=True, metavar="IP:PORT", help="Also try a store by its address.")
@output.option
def clustermesh(
    host: str,
    clusters: tuple[str, ...],
    directory: str,
    timeout: str,
    verbose: bool,
    reach: tuple[str, ...],
    how: str,
) -> None:
    """Ways from this node to the stores of other clusters. Exit 1 when one does not work."""
    from kvstore import ways
    from model.duration import parse_duration_s

    seconds = parse_duration_s(timeout)
    if not reach and not Path(directory).is_dir():
        raise click.ClickException(
            f"there is no directory {directory}: run this in an agent's container, or name another "
            "with --clustermesh-config"
        )
    try:
        rows = ways.examine(ways.configured(Path(directory), clusters), seconds)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from error
    with ThreadPoolExecutor(ways.PARALLEL) as pool:
        rows += pool.map(lambda place: ways.reach(place, seconds), reach)
    if how == "json":
        found = {"time": time.time(), "device-mtu": _device_mtu(host), "endpoints": rows}
        click.echo(output.as_json(found))
    else:
        click.echo(ways.text(rows, verbose or bool(clusters)))
    if any(row["error"] for row in rows):
        sys.exit(1)


def _device_mtu(host: str) -> int:
    """Of the devices of this node's pods, bytes; 0 when the agent does not say."""
    try:
        return int((rest.get(host, "config").get("status") or {}).get("deviceMTU") or 0)
    except (rest.AgentUnreachableError, rest.AgentRefusedError):
        return 0
