"""When the way to a cluster counts as down, and how it comes back."""

import pytest

from mesh.data_path import DataPaths, PathState, Probe, Rules, rotate
from model.cluster import ClusterName
from model.node import NodeName

A, B = ClusterName("a"), ClusterName("b")
ROUND_S = 10.0
DEFAULTS = Rules()
# A letter is a round: what the nodes of cluster a answer, and who else is heard.
ROUNDS = {
    "+": ((True, True), True),  # all answer
    "~": ((True, False), True),  # half of them
    ".": ((False, True, False), True),  # fewer than half
    "-": ((False, False), True),  # nobody, while our own cluster is heard
    "0": ((False, False), False),  # nobody at all
    " ": ((), True),  # nobody was asked
}


def probes(*answers: bool, first: int = 1) -> list[Probe]:
    return [Probe(NodeName(f"n{place}"), answer) for place, answer in enumerate(answers, first)]


def played(rounds: str, rules: Rules = DEFAULTS, size: int = 9, *, down: bool = False) -> str:
    """State and share after each round, as ``up:100``; repetitions are left out."""
    paths = DataPaths(rules, [A] if down else [])
    seen: list[str] = []
    for place, letter in enumerate(rounds, 1):
        answers, witness = ROUNDS[letter]
        paths.take(place * ROUND_S, {A: probes(*answers)}, {A: size}, probes(witness))
        told = f"{paths[A].state}:{paths[A].share_pct}"
        if seen[-1:] != [told]:
            seen.append(told)
    return " ".join(seen)


RETURN = "returning:10 returning:25 returning:50 up:100"


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ("+++", "up:100"),
        ("+--", "up:100"),
        ("+---", "up:100 down:0"),
        ("+--+--+--", "up:100"),
        ("+--~--", "up:100"),
        ("+--.--", "up:100"),
        ("+.........", "up:100"),  # some are dead, some are not
        ("+--00000", "up:100"),  # our own network is down
        ("+--000-", "up:100 down:0"),  # which is no evidence either way
        ("+--   -", "up:100 down:0"),
        ("-----", "unknown:100"),  # it never answered: probes may be filtered there
        ("00000+", "unknown:100 up:100"),
        ("+---++", "up:100 down:0"),
        ("+---++-++-++", "up:100 down:0"),
        ("+---++.++", "up:100 down:0"),
        ("+---+++", "up:100 down:0 returning:10"),
        ("+---+++++++", "up:100 down:0 returning:10 returning:25"),
        ("+---" + "+" * 16, f"up:100 down:0 {RETURN}"),
        # A step waits for rounds that are all answered, and three silent ones end it.
        ("+---+++" + "+++-" * 5, "up:100 down:0 returning:10"),
        ("+---+++" + "---", "up:100 down:0 returning:10 down:0"),
    ],
)
def test_rounds_in_a_row_decide(rounds: str, expected: str) -> None:
    """Three silent rounds take out, three answered ones begin the return."""
    assert played(rounds) == expected


def test_one_dead_node_is_not_its_cluster() -> None:
    """While always the same node is asked, its silence counts only if there is no other."""
    paths = DataPaths(Rules())
    only = {A: probes(False)}
    paths.take(0, {A: probes(True)}, {A: 2})
    for turn in range(9):
        assert paths.take(turn, only, {A: 2}, probes(True)) == []
    assert paths.take(9, {A: probes(False, first=2)}, {A: 2}, probes(True)) != []
    paths = DataPaths(Rules())
    paths.take(0, {A: probes(True)}, {A: 1})
    changed = [paths.take(turn, only, {A: 1}, probes(True)) for turn in range(3)]
    assert [len(found) for found in changed] == [0, 0, 1]


def test_other_clusters_are_witnesses() -> None:
    """Where all fail at once we are cut off; where one answers the silent one is."""
    paths = DataPaths(Rules())
    paths.take(0, {A: probes(True), B: probes(True)}, {A: 3, B: 3})
    silent = probes(False, False)
    for turn in range(5):
        assert paths.take(turn, {A: silent, B: silent}, {A: 3, B: 3}, probes(False)) == []
    for turn in range(3):
        paths.take(turn, {A: silent, B: probes(True, True)}, {A: 3, B: 3}, probes(False))
    assert (paths[A].state, paths[B].state) == (PathState.DOWN, PathState.UP)


def test_an_answer_outside_of_the_tunnel_is_a_witness() -> None:
    """A node that answers, but not through the tunnel, says what is wrong, and the remedy."""
    paths = DataPaths(Rules())
    paths.take(0, {A: probes(True)}, {A: 2})
    asked = [Probe(NodeName("n1"), False, True), Probe(NodeName("n2"), False)]
    for turn in range(3):
        paths.take(turn, {A: asked}, {A: 2})
    assert paths[A].state is PathState.DOWN
    assert paths[A].sentence() == (
        "0 of 2 asked nodes answer through the tunnel, 1 only outside of it: "
        "let UDP 8472 pass between the nodes of both clusters"
    )


def test_a_former_life_is_remembered() -> None:
    """What was down stays down until it answers."""
    assert played("---", down=True) == "down:0"
    assert played("+++", down=True) == "down:0 returning:10"


def test_return_without_steps() -> None:
    """A time of 0 gives all of it back at once."""
    assert played("+---+++", Rules(return_s=0)) == "up:100 down:0 up:100"


def test_forgotten() -> None:
    """A cluster that left is asked anew when it comes back."""
    paths = DataPaths(Rules(), [A])
    assert list(paths) == [A]
    paths.forget(A)
    assert (list(paths), paths[A].state) == ([], PathState.UNKNOWN)


def test_all_nodes_have_their_turn() -> None:
    """Each round asks other nodes, and all of them come up."""
    names = [NodeName(f"n{number}") for number in range(7)]
    rounds = [rotate(names, turn, 3) for turn in range(7)]
    assert all(len(set(asked)) == 3 for asked in rounds)
    assert {name for asked in rounds[:3] for name in asked} == set(names)
    assert rotate(names[:2], 5, 3) == names[:2]
