"""``isthmus lab …``: the command line of the lab; each command imports what it uses."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

NAME = click.argument("name", default="lab")


@contextmanager
def _said() -> Iterator[None]:
    """Turn the lab's own errors into one line and exit code 1."""
    from kind.lab.topology import LabError
    from kind.runtime.client import RuntimeGone, RuntimeRefused

    try:
        yield
    except ExceptionGroup as group:
        errors = _leaves(group)
        known = [error for error in errors if isinstance(error, LabError)]
        if not known or len(known) != len(errors):
            raise
        raise click.ClickException("\n".join(str(error) for error in known)) from None
    except PermissionError as error:
        raise click.ClickException(f"a lab needs root ({error}); run it with sudo") from None
    except (LabError, RuntimeGone, RuntimeRefused) as error:
        raise click.ClickException(str(error)) from None


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, ExceptionGroup) else [error]
    return found


@click.group()
def lab() -> None:
    """Clusters made of network namespaces on this machine (root, no Docker)."""


@lab.command()
@NAME
@click.option("--clusters", default=2, show_default=True, help="How many clusters.")
@click.option("--nodes", default=2, show_default=True, help="Nodes of each cluster.")
@click.option("--underlay-mtu", default=1500, show_default=True, help="MTU between nodes.")
@click.option(
    "--kube-assets",
    envvar="KUBEBUILDER_ASSETS",
    default="",
    help="Directory with kube-apiserver, kube-controller-manager and kube-scheduler to use.",
)
@click.option("--install/--no-install", default=True, help="Install Isthmus into the clusters.")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="As of install.")
def up(
    name: str,
    clusters: int,
    nodes: int,
    underlay_mtu: int,
    kube_assets: str,
    install: bool,
    values: tuple[str, ...],
) -> None:
    """Start lab NAME and wait until it is ready."""
    from kind.lab import up as starting
    from kind.lab.progress import Progress

    request = starting.Request(name, clusters, nodes, underlay_mtu, kube_assets, install, values)
    with _said(), Progress(f"lab {name}") as progress:
        record = starting.run(request, progress.step)
    topology = record.topology()
    click.echo(f"export KUBECONFIG={topology.kubeconfig}")
    contexts = ", ".join(cluster.name for cluster in topology.clusters)
    click.echo(f"# contexts: {contexts}; kubectl --context cluster1 get pods -A")


@lab.command()
@NAME
@click.option("--all", "everything", is_flag=True, help="All labs of this machine.")
def down(name: str, everything: bool) -> None:
    """Remove lab NAME, also a broken or half started one."""
    from kind.lab import down as removing
    from kind.lab import state

    with _said():
        for lab_name in state.names() if everything else [name]:
            with state.locked(lab_name):
                removed = removing.remove(lab_name)
            if removed.anything:
                click.echo(
                    f"lab {lab_name}: removed {removed.processes} processes, "
                    f"{removed.namespaces} network namespaces, {removed.mounts} mounts"
                )
            else:
                click.echo(f"lab {lab_name}: nothing to remove")


@lab.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def list_labs(output: str) -> None:
    """The labs of this machine."""
    from kind.lab import state
    from kind.lab.topology import LabError

    rows = []
    for name in state.names():
        try:
            record = state.load(name)
        except LabError as error:
            rows.append({"name": name, "state": "broken", "detail": str(error)})
        else:
            detail = f"{record.clusters} clusters × {record.nodes} nodes, {record.created}"
            rows.append({"name": name, "state": "up", "detail": f"{detail}, by {record.by}"})
    if output == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']}\t{row['state']}\t{row['detail']}")
    if not rows:
        click.echo("no labs")


@lab.command()
@NAME
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(name: str, output: str) -> None:
    """Nodes, processes and pods of lab NAME; exit code 1 when something is wrong."""
    from kind.lab import report, state

    with _said():
        found = report.make(state.load(name))
    if output == "json":
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        from kind.lab import show

        show.report(found)
    sys.exit(1 if found.problems else 0)


@lab.command()
@NAME
def kubeconfig(name: str) -> None:
    """Print the path of the lab's kubeconfig (contexts cluster1, cluster2, ...)."""
    from kind.lab import state

    with _said():
        click.echo(state.load(name).topology().kubeconfig)


LAB = click.option("--lab", "lab_name", default="lab", show_default=True, help="Which lab.")
CLUSTER = click.option("--cluster", default="", help="Only pods of this cluster.")
NAMESPACE = click.option("-n", "--namespace", default="", help="Only pods of this namespace.")
CONTAINER = click.option("-c", "--container", default="", help="Which container of the pod.")


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@LAB
@CLUSTER
@NAMESPACE
@CONTAINER
@click.argument("target")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def execute(
    lab_name: str, cluster: str, namespace: str, container: str, target: str, command: tuple[str]
) -> None:
    """Run COMMAND on a node or in a pod: isthmus lab exec cluster1-worker -- ip addr.

    TARGET is a node, or a pod by name or an unambiguous beginning of it; NAMESPACE/POD and
    CLUSTER/POD work as well.
    """
    from kind.lab import attach, find, state

    with _said():
        topology = state.load(lab_name).topology()
        node = find.node(topology, target)
        if node is not None:
            code = attach.run(node, attach.on_node(node, command), "")
        else:
            found = find.pod(topology, target, cluster, namespace, container)
            launch = attach.in_pod(found, command)
            code = attach.run(found.node, launch, found.record.launch.id)
    sys.exit(code)


@lab.command()
@LAB
@CLUSTER
@NAMESPACE
@CONTAINER
@click.option("-f", "--follow", is_flag=True, help="Go on while the container writes.")
@click.option("--tail", default=-1, help="Only so many lines of the end.")
@click.argument("target")
def logs(
    lab_name: str,
    cluster: str,
    namespace: str,
    container: str,
    follow: bool,
    tail: int,
    target: str,
) -> None:
    """Output of a pod's container, or of a node's process: NODE/kubelet, NODE/etcd, ..."""
    from kind.lab import find, logfile, state

    with _said():
        topology = state.load(lab_name).topology()
        path = logfile.of_service(topology, target)
        if path is None:
            found = find.pod(topology, target, cluster, namespace, container)
            path = Path(found.record.launch.log)
        logfile.show(path, tail, follow)


@lab.command()
@click.option("--keep", is_flag=True, help="Leave the lab standing.")
@click.argument("name", default="demo")
def demo(keep: bool, name: str) -> None:
    """Build two clusters, join them, tell the story with figures; exit 0 if every step held."""
    from kind import demo as telling

    sys.exit(telling.run(keep, name))
