"""A few seeds of the simulation with every change; tests/simulation plays many."""

import pytest

from tests.simulation.play import play


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed(seed: int) -> None:
    """After each quiet every kernel is right."""
    play(seed)
