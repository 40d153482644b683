"""``isthmus clustermesh``: the group; each command is imported when it is asked for. Adapter."""

import click

from cli import options
from cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "connect": Lazy("cli.mesh_connect", "connect", "Let clusters read each other."),
    "disable": Lazy(
        "cli.mesh_store", "disable", "Stop the mesh store and forget the connected clusters."
    ),
    "disconnect": Lazy(
        "cli.mesh_disconnect", "disconnect", "Stop clusters from reading each other."
    ),
    "doctor": Lazy(
        "cli.mesh_doctor", "doctor", "What keeps clusters from being joined, or from working."
    ),
    "enable": Lazy("cli.mesh_store", "enable", "Run the mesh store of a cluster."),
    "grant": Lazy("cli.mesh_join", "grant", "Print a token with which another cluster may join."),
    "inspect": Lazy("cli.mesh_inspect", "inspect", "All that a cluster knows of its connections."),
    "join": Lazy("cli.mesh_join", "join", "Join the cluster that gave out a token."),
    "status": Lazy("cli.mesh_report", "status", "How the agents of a cluster are connected."),
}

# Commands of the well-known tool that do not exist here -> what to use in their place.
ELSEWHERE = {
    "external-workload": "machines outside of clusters are not supported: run a node on them",
    "vm": "machines outside of clusters are not supported: run a node on them",
    "inspect-policy-default-local-cluster": "policies select by the label "
    "io.cilium.k8s.policy.cluster; connections are shown by `isthmus clustermesh inspect`",
}


class _Group(LazyGroup):
    """Says of some commands what to use in their place."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            raise click.UsageError(f"no command {cmd_name}: {ELSEWHERE[cmd_name]}", ctx)
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Group, lazy=COMMANDS)
@options.group
def clustermesh() -> None:
    """Join clusters, and see how they are joined."""
