"""The state of a cluster's data path under any answers: it never flaps faster than its rules."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.data_path import STEPS_PCT, DataPaths, PathState, Probe, Rules
from model.cluster import ClusterName
from model.node import NodeName

A, B = ClusterName("a"), ClusterName("b")
NODES = [NodeName(f"n{number}") for number in range(4)]
ASKED = st.lists(
    st.builds(Probe, st.sampled_from(NODES), st.booleans(), st.booleans()),
    max_size=3,
    unique_by=lambda probe: probe.node,
)
ROUNDS = st.lists(st.tuples(ASKED, ASKED, ASKED), max_size=60)
RULES = st.builds(
    Rules, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 3.0, 30.0, 120.0])
)


@given(RULES, ROUNDS, st.integers(1, 4))
def test_it_never_flaps_within_the_rules(
    rules: Rules, rounds: list[tuple[list[Probe], list[Probe], list[Probe]]], size: int
) -> None:
    """Down only after so many rounds without an answer since the last change, of several nodes, the
    last of them witnessed; back only after so many with one; all of it never before its time."""
    paths = DataPaths(rules)
    since: list[list[Probe]] = []
    shares = [100]
    down_until_s = 0.0
    for now_s, (of_a, of_b, ours) in enumerate(rounds):
        before = paths[A].state
        told = paths.take(now_s, {A: of_a, B: of_b}, {A: size, B: size}, ours)
        state = paths[A].state
        since.append(of_a)
        assert bool([t for t in told if t.cluster == A]) == (
            (state, paths[A].share_pct) != (before, shares[-1])
        )
        if not of_a:
            assert state is before
        if state is not before:
            answers = [any(p.answered for p in asked) for asked in since if asked]
            if state is PathState.DOWN:
                streak = [asked for asked in since if asked][-rules.failures :]
                assert len(streak) == rules.failures
                assert not any(answers[-rules.failures :])
                names = {p.node for asked in since for p in asked}
                assert len(names) >= min(2, size)
                assert any(p.answered for p in (*of_b, *ours)) or any(
                    p.direct for p in (*of_a, *of_b, *ours)
                )
            elif before is PathState.DOWN:
                assert all(answers[-rules.successes :])
                down_until_s = now_s
            elif before is PathState.RETURNING:
                assert now_s - down_until_s >= rules.return_s
            since = []
        if paths[A].share_pct != shares[-1]:
            shares.append(paths[A].share_pct)
    ladder = [0, *STEPS_PCT, 100] if rules.return_s else [0, 100]
    for old, new in pairwise(shares):
        assert new == 0 or ladder.index(new) == ladder.index(old) + 1
