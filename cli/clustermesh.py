"""``isthmus clustermesh``: the group; each command is imported when it is asked for. Adapter."""

import importlib

import click

from cli import options

# name -> module, what the list of commands says
COMMANDS = {
    "connect": ("cli.mesh_connect", "Let clusters read each other."),
    "disable": ("cli.mesh_store", "Stop the mesh store and forget the connected clusters."),
    "disconnect": ("cli.mesh_disconnect", "Stop clusters from reading each other."),
    "doctor": ("cli.mesh_doctor", "What keeps clusters from being joined, or from working."),
    "enable": ("cli.mesh_store", "Run the mesh store of a cluster."),
    "grant": ("cli.mesh_join", "Print a token with which another cluster may join."),
    "inspect": ("cli.mesh_inspect", "All that a cluster knows of its connections."),
    "join": ("cli.mesh_join", "Join the cluster that gave out a token."),
    "status": ("cli.mesh_report", "How the agents of a cluster are connected."),
}

# Commands of the well-known tool that do not exist here -> what to use in their place.
ELSEWHERE = {
    "external-workload": "machines outside of clusters are not supported: run a node on them",
    "vm": "machines outside of clusters are not supported: run a node on them",
    "inspect-policy-default-local-cluster": "policies select by the label "
    "io.cilium.k8s.policy.cluster; connections are shown by `isthmus clustermesh inspect`",
}


class _Group(click.Group):
    """Knows its commands' names; a command is the function of that name in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            raise click.UsageError(f"no command {cmd_name}: {ELSEWHERE[cmd_name]}", ctx)
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(n, COMMANDS[n][1]) for n in self.list_commands(ctx)])


@click.group(cls=_Group)
@options.group
def clustermesh() -> None:
    """Join clusters, and see how they are joined."""
