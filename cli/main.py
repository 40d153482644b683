"""The command ``isthmus``: groups are imported when they are used, so that ``--help`` is quick.

Further groups come from the entry points ``isthmus.commands``: this room may not import those above
it. Every failure that a person can do something about is one line on stderr and exit status 1.
"""

import atexit
import gc
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import click

from cli import options
from cli.lazy import Lazy, LazyGroup

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMANDS = {
    "bpf": Lazy("cli.bpf", "bpf", "Tables in the kernel."),
    "certs": Lazy("cli.certs", "certs", "Certificates of the mesh: what there is, and new ones."),
    "clustermesh": Lazy(
        "cli.clustermesh", "clustermesh", "Join clusters, and see how they are joined."
    ),
    "doctor": Lazy("cli.doctor", "doctor", "Can this machine run it?"),
    "encrypt": Lazy("cli.encrypt", "encrypt", "Encryption between nodes, and its keys."),
    "endpoint": Lazy("cli.inside", "endpoint", "Pods of this node."),
    "hubble": Lazy("cli.hubble", "hubble", "Flows of the mesh."),
    "identity": Lazy("cli.inside", "identity", "Identities and their labels."),
    "install": Lazy("cli.install", "install", "Install Isthmus into a cluster."),
    "ip": Lazy("cli.inside", "ip", "Addresses and their identities."),
    "node": Lazy("cli.inside", "node", "Nodes of all clusters."),
    "policy": Lazy("cli.policy", "policy", "Policies: check, list, explain, try out."),
    "service": Lazy("cli.inside", "service", "Services and their backends."),
    "status": Lazy("cli.status", "status", "State of this node's agent."),
    "troubleshoot": Lazy("cli.troubleshoot", "troubleshoot", "Why a connection fails."),
    "uninstall": Lazy("cli.install", "uninstall", "Remove Isthmus from a cluster."),
    "version": Lazy("cli.doctor", "version", "Versions of the parts."),
}

FURTHER = {  # what is said of commands of other rooms, without loading them
    "lab": "Clusters made of network namespaces.",
    "simulate": "Rehearse large meshes.",
}

# Objects made between two searches for cycles. What imports make is no garbage: with Python's own
# 700 to search it again and again takes a tenth of the start.
_GC_THRESHOLD: Final = 50_000


def _further() -> "Iterable[EntryPoint]":
    from importlib.metadata import entry_points  # takes as long to load as a command to run

    return entry_points(group="isthmus.commands")


class WithFurther(LazyGroup):
    """Also the commands of other rooms, which are entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        further = (entry.name for entry in _further())
        return sorted([*super().list_commands(ctx), *further])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        found = [] if command else [entry for entry in _further() if entry.name == cmd_name]
        loaded: click.Command | None = found[0].load() if found else command
        return loaded

    def help_of(self, ctx: click.Context, name: str) -> str:
        return FURTHER.get(name) or super().help_of(ctx, name)


@click.group(
    cls=WithFurther,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="isthmus", prog_name="isthmus")
@options.group
def isthmus() -> None:
    """Many Kubernetes clusters, one network."""


def main() -> None:
    """Entry point."""
    gc.set_threshold(_GC_THRESHOLD)
    atexit.register(gc.freeze)  # the process ends: what is left is not searched once more
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
