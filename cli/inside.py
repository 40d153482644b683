"""What this node's agent knows: endpoints, identities, addresses, services, nodes. Adapter."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from cli import inside_text, output, rest


def _show(answer: object, rows: Sequence[output.Row], how: str) -> None:
    click.echo(output.as_json(answer) if how == "json" else output.table(rows))


@click.group()
def endpoint() -> None:
    """Pods of this node."""


@endpoint.command("list")
@rest.option
@output.option
@click.option("--no-headers", is_flag=True, help="Rows only.")
def endpoint_list(host: str, how: str, no_headers: bool) -> None:
    """All pods that this agent attached."""
    found = rest.get(host, "endpoint")
    _show(found, inside_text.endpoints(found, headers=not no_headers), how)


@endpoint.command("get")
@rest.option
@click.argument("name", metavar="[ID]", default="")
@click.option("-l", "--labels", multiple=True, metavar="LABEL", help="Endpoints that carry it.")
@click.option("-o", "--output", "how", type=click.Choice(["json", "table"]), default="json")
def endpoint_get(host: str, name: str, labels: tuple[str, ...], how: str) -> None:
    """Everything about one endpoint, or about those with a label.

    ID is a number, or one of pod-name:NAMESPACE/POD, ipv4:ADDRESS, container-id:ID.
    """
    if bool(name) == bool(labels):
        raise click.UsageError("give either the ID of an endpoint or --labels")
    if name:
        found = [rest.get(host, f"endpoint/{rest.segment(name)}")]
    else:
        found = inside_text.with_labels(rest.get(host, "endpoint"), labels)
        if not found:
            raise click.ClickException(f"no endpoint of this node carries {', '.join(labels)}")
    _show(found, inside_text.endpoints(found), how)


@endpoint.command("health")
@rest.option
@output.option
@click.argument("name", metavar="ID")
def endpoint_health(host: str, how: str, name: str) -> None:
    """Whether an endpoint's rows are in the kernel. Exit 1 when not."""
    found = rest.get(host, f"endpoint/{rest.segment(name)}/healthz")
    _show(found, inside_text.endpoint_health(found), how)
    if found.get("overallHealth") != "OK":
        sys.exit(1)


@click.group()
def identity() -> None:
    """Identities and their labels."""


@identity.command("list")
@rest.option
@output.option
@click.option("--endpoints", is_flag=True, help="Only those in use on this node, with how often.")
def identity_list(host: str, how: str, endpoints: bool) -> None:
    """The reserved identities, this cluster's, and those of connected clusters."""
    if endpoints:
        uses = rest.get(host, "identity/endpoints")
        _show(uses, inside_text.identity_uses(uses), how)
        return
    found = rest.get(host, "identity")
    _show(found, inside_text.identities(found), how)


@identity.command("get")
@rest.option
@output.option
@click.argument("number", metavar="ID")
def identity_get(host: str, how: str, number: str) -> None:
    """One identity."""
    found = rest.get(host, f"identity/{rest.segment(number)}")
    _show(found, inside_text.identities([found]), how)


@click.group()
def ip() -> None:
    """Addresses and their identities."""


_numeric = click.option("-n", "--numeric", is_flag=True, help="Identities by number.")
_everything = click.option("-v", "--verbose", is_flag=True, help="Node, key, cluster and pod too.")


@ip.command("list")
@rest.option
@output.option
@_numeric
@_everything
def ip_list(host: str, how: str, numeric: bool, verbose: bool) -> None:
    """All addresses this agent knows, of every cluster."""
    _show_ips(host, rest.get(host, "ip"), how, numeric, verbose)


@ip.command("get")
@rest.option
@output.option
@_numeric
@_everything
@click.argument("cidr")
def ip_get(host: str, how: str, numeric: bool, verbose: bool, cidr: str) -> None:
    """What is known about an address, or about all that a CIDR touches."""
    _show_ips(host, rest.get(host, "ip", {"cidr": cidr}), how, numeric, verbose)


def _show_ips(host: str, found: Any, how: str, numeric: bool, verbose: bool) -> None:
    labels = {}
    if how == "table" and not numeric:
        labels = {i["id"]: i.get("labels") or [] for i in rest.get(host, "identity")}
    _show(found, inside_text.ips(found, labels, verbose), how)


@click.group()
def service() -> None:
    """Services and their backends."""


_affinity = click.option(
    "--clustermesh-affinity", "affinity", is_flag=True, help="Mark preferred backends."
)
_names = click.option(
    "-v", "--verbose", is_flag=True, help="Names of services; cluster and node of each backend."
)


@service.command("list")
@rest.option
@output.option
@_affinity
@_names
def service_list(host: str, how: str, affinity: bool, verbose: bool) -> None:
    """All frontends with the backends of every cluster."""
    found = rest.get(host, "service")
    _show(found, inside_text.services(found, affinity, verbose), how)


@service.command("get")
@rest.option
@output.option
@_affinity
@_names
@click.argument("number", metavar="ID")
def service_get(host: str, how: str, affinity: bool, verbose: bool, number: str) -> None:
    """One frontend by its ID in the list."""
    found = rest.get(host, f"service/{rest.segment(number)}")
    _show(found, inside_text.services([found], affinity, verbose), how)


@click.group()
def node() -> None:
    """Nodes of all clusters."""


@node.command("list")
@rest.option
@output.option
def node_list(host: str, how: str) -> None:
    """Nodes of this cluster and of connected ones."""
    found = rest.get(host, "cluster/nodes").get("nodes-added") or []
    _show(found, inside_text.nodes(found), how)
