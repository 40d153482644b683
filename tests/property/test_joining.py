"""The sweep over prefixes of two clusters against comparing each with each."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.joining import overlap
from model.address import Prefix, make_prefix, parse_address


def _four(value: int, length: int) -> Prefix:
    third = (value << (8 - length)) & 255 if length < 8 else value
    return make_prefix(parse_address(f"10.0.{third}.0"), 16 + length)


def _six(length: int) -> Prefix:
    """Some hold all IPv4 addresses as they are written into maps, and yet none of them."""
    return make_prefix(parse_address("::"), length)


PREFIXES = st.lists(
    st.one_of(
        st.builds(_four, st.integers(0, 255), st.integers(0, 8)),
        st.builds(_six, st.integers(0, 96)),
    ),
    max_size=8,
)


@given(PREFIXES, PREFIXES)
def test_the_sweep_finds_what_comparing_all_finds(ours: list[Prefix], theirs: list[Prefix]) -> None:
    """An overlap is found exactly when there is one, and what is named does overlap."""
    found = overlap(ours, theirs)
    wanted = any(p.version == q.version and p.overlaps(q) for p in ours for q in theirs)
    assert (found is not None) == wanted
    if found is not None:
        assert found[0] in ours
        assert found[1] in theirs
        assert found[0].overlaps(found[1])
