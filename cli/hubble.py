"""``isthmus hubble``: the group; each command is imported when it is asked for. Adapter."""

import click

from cli import hubble_settings
from cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "completion": Lazy("cli.hubble_settings", "completion", "Have a shell complete this command."),
    "config": Lazy("cli.hubble_settings", "config", "Settings that need not be given each time."),
    "disable": Lazy("cli.hubble_enable", "disable", "Take observers and relay away."),
    "enable": Lazy("cli.hubble_enable", "enable", "Observe flows on every node."),
    "list": Lazy("cli.hubble_ask", "listing", "Nodes and namespaces."),
    "map": Lazy("cli.hubble_map", "service_map", "Services and who talks to them."),
    "observe": Lazy("cli.hubble_observe", "observe", "Flows and events, as they are asked for."),
    "port-forward": Lazy("cli.hubble_forward", "port_forward", "Have the relay on this machine."),
    "record": Lazy("cli.hubble_record", "record", "Write flows to a file as they come."),
    "reflect": Lazy("cli.hubble_ask", "reflect", ""),
    "replay": Lazy("cli.hubble_record", "replay", "Show recorded flows."),
    "status": Lazy("cli.hubble_ask", "status", "Health and numbers of an observer or relay."),
    "ui": Lazy("cli.hubble_ui", "ui", "Serve the front end of Hubble's UI."),
    "version": Lazy("cli.hubble_settings", "version", "Version of this command."),
    "w": Lazy("cli.hubble_ask", "watch", ""),
    "watch": Lazy("cli.hubble_ask", "watch", "What changes."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@hubble_settings.group_option
def hubble() -> None:
    """Flows of the mesh: what happened to which packet, and why."""
