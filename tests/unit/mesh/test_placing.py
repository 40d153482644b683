"""Few parts change when few of their members do."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.placing import place

NUMBERS = st.integers(0, 40)


@given(st.sets(NUMBERS), st.lists(st.lists(NUMBERS, unique=True), max_size=6), st.integers(1, 5))
def test_each_once_and_in_its_place(wanted: set[int], parts: list[list[int]], size: int) -> None:
    """Nobody is lost, doubled, or moved without need; no part is too large."""
    placed = place(sorted(wanted), parts, size)
    everybody = [one for part in placed for one in part]
    assert sorted(everybody) == sorted(wanted)
    assert all(len(part) <= size for part in placed)
    seen: set[int] = set()
    for number, part in enumerate(parts):
        may_stay = [one for one in part if one in wanted and one not in seen][:size]
        assert placed[number][: len(may_stay)] == may_stay
        seen.update(may_stay)


def test_one_more_changes_one_part() -> None:
    """The first with room, or a new one."""
    assert place("abcde", ["abc", "d"], 3) == [["a", "b", "c"], ["d", "e"]]
    assert place("abcd", ["abc"], 3) == [["a", "b", "c"], ["d"]]
    assert place("bc", ["ab", "c"], 3) == [["b"], ["c"]]
