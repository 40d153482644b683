"""The entry point: every command exists, and commands for nodes start without heavy libraries."""

import subprocess
import sys

import click
import pytest

from cli import main
from tests.support.cli import isthmus


def test_every_command_can_be_imported() -> None:
    """Each name of the help is a command, and its help can be shown."""
    context = click.Context(main.isthmus)
    for name in main.isthmus.list_commands(context):
        assert isinstance(main.isthmus.get_command(context, name), click.Command)
        result = isthmus(name, "--help")
        assert result.code == 0
        assert result.out.startswith(f"Usage: isthmus {name}")


def test_an_unknown_command_is_named() -> None:
    """Exit 2, with the word that is not known."""
    result = isthmus("frobnicate")
    assert result.code == 2
    assert "frobnicate" in result.err


@pytest.mark.parametrize("command", ["status", "endpoint", "identity", "ip", "service", "node"])
def test_commands_of_a_node_start_light(command: str) -> None:
    """Commands that only ask the agent load no client of Kubernetes, etcd or netlink."""
    heavy = ("kubernetes", "grpc", "pyroute2", "aiohttp", "cryptography", "asyncio", "rich")
    code = (
        "import sys, click\n"
        "from cli import main\n"
        f"main.isthmus.get_command(click.Context(main.isthmus), {command!r})\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert out == "[]\n"


def test_a_command_that_says_no_leaves_with_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``click.exceptions.Exit`` inside a command becomes the exit status of the process."""

    @click.command()
    def refuse() -> None:
        raise click.exceptions.Exit(3)

    monkeypatch.setattr(main.isthmus, "get_command", lambda context, name: refuse)
    monkeypatch.setattr(sys, "argv", ["isthmus", "refuse"])
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 3
