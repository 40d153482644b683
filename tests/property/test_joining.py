"""The sweep over prefixes of two clusters against comparing each with each."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.joining import overlap
from model.address import Prefix, make_prefix, parse_address

PREFIXES = st.lists(
    st.builds(
        lambda value, length: make_prefix(
            parse_address(f"10.0.{(value << (8 - length)) & 255 if length < 8 else value}.0"),
            16 + length,
        ),
        st.integers(0, 255),
        st.integers(0, 8),
    ),
    max_size=8,
)


@given(PREFIXES, PREFIXES)
def test_the_sweep_finds_what_comparing_all_finds(ours: list[Prefix], theirs: list[Prefix]) -> None:
    """An overlap is found exactly when there is one, and what is named does overlap."""
    found = overlap(ours, theirs)
    assert (found is not None) == any(p.overlaps(q) for p in ours for q in theirs)
    if found is not None:
        assert found[0] in ours
        assert found[1] in theirs
        assert found[0].overlaps(found[1])
