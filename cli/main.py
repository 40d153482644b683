"""The command ``isthmus``: groups are imported when they are used, so that ``--help`` is quick.

Further groups come from the entry points ``isthmus.commands``: this room may not import those above
it. Every failure that a person can do something about is one line on stderr and exit status 1.
"""

import importlib
import sys
from importlib.metadata import entry_points

import click

from cli import options

COMMANDS = {
    "bpf": ("cli.bpf", "bpf", "Tables in the kernel."),
    "certs": ("cli.certs", "certs", "Certificates of the mesh: what there is, and new ones."),
    "clustermesh": (
        "cli.clustermesh",
        "clustermesh",
        "Join clusters, and see how they are joined.",
    ),
    "doctor": ("cli.doctor", "doctor", "Can this machine run it?"),
    "encrypt": ("cli.encrypt", "encrypt", "Encryption between nodes, and its keys."),
    "endpoint": ("cli.inside", "endpoint", "Pods of this node."),
    "hubble": ("cli.hubble", "hubble", "Flows of the mesh."),
    "identity": ("cli.inside", "identity", "Identities and their labels."),
    "install": ("cli.install", "install", "Install Isthmus into a cluster."),
    "ip": ("cli.inside", "ip", "Addresses and their identities."),
    "node": ("cli.inside", "node", "Nodes of all clusters."),
    "policy": ("cli.policy", "policy", "Policies: check, list, explain, try out."),
    "service": ("cli.inside", "service", "Services and their backends."),
    "status": ("cli.status", "status", "State of this node's agent."),
    "troubleshoot": ("cli.troubleshoot", "troubleshoot", "Why a connection fails."),
    "uninstall": ("cli.install", "uninstall", "Remove Isthmus from a cluster."),
    "version": ("cli.doctor", "version", "Versions of the parts."),
}

FURTHER = {  # what is said of commands of other rooms, without loading them
    "lab": "Clusters made of network namespaces.",
    "simulate": "Rehearse large meshes.",
}


class LazyGroup(click.Group):
    """Knows its commands' names; imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*COMMANDS, *(e.name for e in entry_points(group="isthmus.commands"))])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = COMMANDS.get(cmd_name)
        if known is not None:
            command = getattr(importlib.import_module(known[0]), known[1])
        else:
            found = [e for e in entry_points(group="isthmus.commands") if e.name == cmd_name]
            if not found:
                return None
            command = found[0].load()
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(n, COMMANDS[n][2] if n in COMMANDS else "") for n in self.list_commands(ctx)]
        rows = [(n, text or FURTHER.get(n, "")) for n, text in rows]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="isthmus", prog_name="isthmus")
@options.group
def isthmus() -> None:
    """Many Kubernetes clusters, one network."""


def main() -> None:
    """Entry point."""
    try:
        # Without its standalone mode click returns the status of ``Exit`` and raises nothing.
        status = isthmus(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.Abort:
        print("Aborted.", file=sys.stderr)
        sys.exit(130)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        print(f"Error: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (OSError, ValueError, TimeoutError) as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(0)
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
