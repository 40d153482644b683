"""``isthmus status``: the state of this node's agent. Adapter.

``-o json`` prints the agent's answer untouched: the workstation's ``clustermesh status`` executes
that in every agent's container.
"""

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from cli import rest, status_text
from model.duration import parse_duration_s

POLL_S = 0.2


@click.command()
@rest.option
@click.option("-o", "--output", "how", type=click.Choice(["table", "json"]), default="table")
@click.option("--brief", is_flag=True, help="OK, or the first part that is not well.")
@click.option("--verbose", is_flag=True, help="Everything.")
@click.option("--all-addresses", is_flag=True, help="Allocated addresses and their owners.")
@click.option("--all-clusters", is_flag=True, help="Remote clusters that are ready, too.")
@click.option("--all-controllers", is_flag=True, help="Controllers that are well, too.")
@click.option(
    "--require-k8s-connectivity/--no-require-k8s-connectivity",
    "require_kubernetes",
    default=True,
    help="Is the agent ill when it does not reach the API server?  [default: yes]",
)
@click.option("--timeout", default="30s", show_default=True, help="For one answer.")
@click.option("--wait", is_flag=True, help="Until the agent is well.")
@click.option("--wait-duration", default="5m", show_default=True, help="At most so long.")
def status(
    host: str,
    how: str,
    brief: bool,
    verbose: bool,
    all_addresses: bool,
    all_clusters: bool,
    all_controllers: bool,
    require_kubernetes: bool,
    timeout: str,
    wait: bool,
    wait_duration: str,
) -> None:
    """State of this node's agent. Exit 1 when it is not well or does not answer."""
    wait_s = parse_duration_s(wait_duration) if wait else 0.0
    body, answer = _ask(host, parse_duration_s(timeout), wait_s, require_kubernetes)
    problem = status_text.problem(answer, require_kubernetes)
    if how == "json":
        click.echo(body)
    elif brief:
        click.echo(problem or "OK")
    else:
        detail = status_text.Detail(all_addresses, all_clusters, all_controllers, verbose)
        click.echo(status_text.text(answer, detail, datetime.now(UTC)))
    if problem:
        sys.exit(1)


def _ask(
    host: str, timeout_s: float, wait_s: float, require_kubernetes: bool
) -> tuple[bytes, Mapping[str, Any]]:
    """The first answer that says the agent is well; when the time is over, the last one."""
    deadline = time.monotonic() + wait_s
    while True:
        left_s = deadline - time.monotonic()
        over = left_s <= 0
        limit_s = timeout_s if over else min(timeout_s, max(left_s, POLL_S))
        try:
            body = rest.fetch(host, "healthz", limit_s)
            answer = _decode(host, body)
        except rest.AgentUnreachableError:
            if over:
                raise
        else:
            if over or not status_text.problem(answer, require_kubernetes):
                return body, answer
        time.sleep(POLL_S)


def _decode(host: str, body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise rest.AgentUnreachableError(
            f"what listens at {host} does not answer with a status: is it the agent's socket?"
        )
    return answer
