"""Pure parts of `isthmus clustermesh`: who is joined with whom, and the last lines."""

import click
import pytest
from click.testing import CliRunner

from cli import cluster, main, mesh_pairs
from cli.main import isthmus


@pytest.mark.parametrize(
    ("count", "mode", "pairs"),
    [
        (2, "bidirectional", [(0, 1)]),
        (3, "bidirectional", [(0, 1), (0, 2)]),
        (3, "unicast", [(0, 1), (0, 2)]),
        (3, "mesh", [(0, 1), (0, 2), (1, 2)]),
    ],
)
def test_who_is_joined(count: int, mode: str, pairs: list[tuple[int, int]]) -> None:
    """The local cluster with each other one; in a mesh all with all."""
    assert mesh_pairs.pairs(count, mode) == pairs


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        ("bidirectional", ["✅ Connected cluster a <=> b!", "✅ Connected cluster a <=> c!"]),
        ("unicast", ["✅ Connected cluster a => b!", "✅ Connected cluster a => c!"]),
        ("mesh", ["✅ Connected clusters b, c, and a!"]),
    ],
)
def test_last_lines(mode: str, lines: list[str]) -> None:
    """As the well-known tool says it."""
    assert mesh_pairs.done("Connected", ["a", "b", "c"], mode, "<=>", "=>") == lines


@pytest.mark.parametrize("words", [("connect",), ("disconnect",)])
def test_a_destination_is_needed(words: tuple[str, ...]) -> None:
    """Without one it is a mistake of use, exit status 2."""
    done = CliRunner().invoke(isthmus, ["clustermesh", *words])
    assert done.exit_code == 2
    assert "--destination-context" in done.output


def test_bad_wait_duration() -> None:
    """A duration that is none is told before anything is asked."""
    words = ["clustermesh", "status", "--wait", "--wait-duration", "5 minutes"]
    done = CliRunner().invoke(isthmus, words)
    assert isinstance(done.exception, ValueError)
    assert '"5 minutes"' in str(done.exception)


@pytest.mark.parametrize("status", [0, 1, 3])
def test_exit_status_of_a_command_is_that_of_the_program(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a command's work returns is what the shell sees, and no work means success."""

    @click.command()
    def leave() -> None:
        async def work() -> int:
            return status

        cluster.run(work())

    monkeypatch.setattr(isthmus, "get_command", lambda ctx, name: leave)
    monkeypatch.setattr("sys.argv", ["isthmus", "leave"])
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == status
