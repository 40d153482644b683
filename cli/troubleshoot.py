"""``isthmus troubleshoot clustermesh``: does this node reach other clusters' stores? Adapter.

Runs on a node. ``clustermesh doctor`` executes it in agents' containers, so that a way is tried
from where it will be used and not from a workstation.
"""

import hashlib
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from cli import output, rest

CONFIG = "/var/lib/cilium/clustermesh/"
PARALLEL = 64  # 250 clusters that do not answer take four rounds
Row = dict[str, Any]


@click.group()
def troubleshoot() -> None:
    """Find out why a connection fails."""


@troubleshoot.command()
@rest.option
@click.argument("clusters", nargs=-1)
@click.option("--clustermesh-config", "directory", default=CONFIG, show_default=True)
@click.option("--timeout", default="5s", show_default=True, help="For one endpoint.")
@click.option("--reach", multiple=True, metavar="IP:PORT", help="Also try a store by its address.")
@output.option
def clustermesh(
    host: str,
    clusters: tuple[str, ...],
    directory: str,
    timeout: str,
    reach: tuple[str, ...],
    how: str,
) -> None:
    """Ways from this node to the stores of other clusters. Exit 1 when one does not work."""
    from model.duration import parse_duration_s

    seconds = parse_duration_s(timeout)
    if not reach and not Path(directory).is_dir():
        raise click.ClickException(
            f"there is no directory {directory}: run this in an agent's container, or name another "
            "with --clustermesh-config"
        )
    rows = configured(Path(directory), clusters)
    with ThreadPoolExecutor(PARALLEL) as pool:
        rows = list(pool.map(lambda row: _explained(row, seconds), rows))
        rows += pool.map(lambda place: reached(place, seconds), reach)
    if how == "json":
        found = {"time": time.time(), "device-mtu": _device_mtu(host), "endpoints": rows}
        click.echo(output.as_json(found))
    else:
        click.echo(output.table([["CLUSTER", "ENDPOINT", "RESULT"], *map(_cells, rows)]))
    if any(row["error"] for row in rows):
        sys.exit(1)


def configured(directory: Path, wanted: tuple[str, ...]) -> list[Row]:
    """One row per endpoint of the files in a directory; ``config`` is what was read."""
    from kvstore.config import StoreConfigError, load_store_config

    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    rows: list[Row] = []
    for path in paths:
        if path.name.startswith(".") or not path.is_file() or b"endpoints:" not in _head(path):
            continue
        if wanted and path.name not in wanted:
            continue
        try:
            config = load_store_config(path)
        except (StoreConfigError, OSError) as error:
            rows.append({"cluster": path.name, "endpoint": "", "error": str(error)})
            continue
        rows += [
            {"cluster": path.name, "endpoint": target.authority, "config": config, "to": target}
            for target in config.targets()
        ]
    missing = set(wanted) - {row["cluster"] for row in rows}
    if missing:
        raise click.ClickException(
            f"{directory} has no file for cluster {sorted(missing)[0]}: "
            "is it connected (`isthmus clustermesh status`)?"
        )
    return rows


def reached(place: str, seconds: float) -> Row:
    """Connect and greet; whose certificate is shown is not judged, for we have no CA of theirs."""
    row: Row = {"cluster": "", "endpoint": place, "error": ""}
    address, _, port = place.rpartition(":")
    began = time.monotonic()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address.strip("[]"), int(port)), seconds) as connection,
            context.wrap_socket(connection) as tls,
        ):
            shown = tls.getpeercert(binary_form=True) or b""
    except ssl.SSLError as error:
        row["error"] = f"what listens there does not speak TLS ({error.reason or error})"
    except (OSError, ValueError) as error:
        row["error"] = str(getattr(error, "strerror", None) or error)
    else:
        row["certificate"] = hashlib.sha256(shown).hexdigest()
    row["ms"] = round((time.monotonic() - began) * 1e3, 1)
    return row


def _explained(row: Row, seconds: float) -> Row:
    from kvstore import diagnose

    if "config" not in row:
        return row
    began = time.monotonic()
    error = diagnose.explain(row["config"], row["to"], seconds)
    ms = round((time.monotonic() - began) * 1e3, 1)
    return {"cluster": row["cluster"], "endpoint": row["endpoint"], "error": error, "ms": ms}


def _head(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _device_mtu(host: str) -> int:
    """Of the devices of this node's pods, bytes; 0 when the agent does not say."""
    try:
        return int((rest.get(host, "config").get("status") or {}).get("deviceMTU") or 0)
    except (rest.AgentUnreachableError, rest.AgentRefusedError):
        return 0


def _cells(row: Row) -> list[str]:
    return [row["cluster"] or "-", row["endpoint"], row["error"] or f"ok ({row['ms']} ms)"]
