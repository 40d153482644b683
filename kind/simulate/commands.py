"""``isthmus simulate …``: rehearsals of what no lab is large enough for."""

import secrets
import sys

import click

from model.duration import parse_duration_s


def _duration(ctx: click.Context, option: click.Parameter, value: str) -> float:
    try:
        return parse_duration_s(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.group()
def simulate() -> None:
    """Rehearse large meshes on this machine."""


@simulate.command()
@click.option("--clusters", default=10, show_default=True, help="Remote clusters.")
@click.option("--nodes", default=100, show_default=True, help="Nodes of each.")
@click.option("--endpoints", default=1000, show_default=True, help="Pods of each.")
@click.option("--identities", default=100, show_default=True, help="Identities of each.")
@click.option("--services", default=20, show_default=True, help="Global services.")
@click.option("--backends", default=2, show_default=True, help="Of a service, in each cluster.")
@click.option("--churn", default=325.0, show_default=True, help="Changes per second, in all.")
@click.option("--duration", default="60s", show_default=True, callback=_duration, help="Of churn.")
@click.option("--seed", type=int, help="Which changes; default: drawn and reported.")
@click.option("--direct", default=0, show_default=True, help="Clusters with an own etcd.")
@click.option("--services-only", is_flag=True, help="Only backends of services change.")
@click.option("--timeout", default="5m", show_default=True, callback=_duration, help="To be read.")
@click.option("--agent", "settings", multiple=True, metavar="KEY=VALUE", help="Agent setting.")
@click.option("--keep-logs", default="", metavar="DIR", help="Copy the logs there at the end.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def mesh(
    clusters: int,
    nodes: int,
    endpoints: int,
    identities: int,
    services: int,
    backends: int,
    churn: float,
    duration: float,
    seed: int | None,
    direct: int,
    services_only: bool,
    timeout: float,
    settings: tuple[str, ...],
    keep_logs: str,
    output: str,
) -> None:
    """One real agent with real kernel maps reads many simulated clusters from real etcds.

    They lie in one etcd as a KVStoreMesh copies them; with --direct K the first K have an etcd of
    their own. Exit code 1: a row is missing or wrong in the kernel, or something failed. Needs
    root; nothing is left behind, whatever ends the command.
    """
    from kind.simulate import run
    from kind.simulate.rehearsal import Request
    from kind.simulate.shape import Shape

    try:
        shape = Shape(clusters, nodes, endpoints, identities, services, backends)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not 0 <= direct <= clusters:
        raise click.UsageError(f"--direct is {direct}: use 0 to {clusters}")
    request = Request(
        shape=shape,
        churn_per_s=churn,
        duration_s=duration,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        direct=direct,
        services_only=services_only,
        timeout_s=timeout,
        settings=tuple(_setting(text) for text in settings),
        keep_logs=keep_logs,
    )
    code, report = run.rehearse(request)
    if report is not None:
        click.echo(report.as_json() if output == "json" else report.text())
    sys.exit(code)


def _setting(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError(f"--agent {text}: use KEY=VALUE, as in the agent's configuration")
    return key, value
