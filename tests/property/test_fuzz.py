"""A short run of every fuzz target; ``make fuzz`` goes on for longer."""

import random

import pytest

from tests.fuzz.run import Finding, fuzz, one
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_decoders_keep_their_promise(name: str) -> None:
    """Almost right bytes give a value that survives a round trip, or the decoder's one error."""
    assert fuzz(TARGETS[name], random.Random(name), rounds=400) == 400


def test_the_fuzzer_finds_what_is_wrong() -> None:
    """Another error than the promised one is a finding."""

    def careless(data: bytes) -> None:
        if len(data) != 3:
            raise KeyError(len(data))

    target = Target(careless, [b"abc"])
    assert one(target, b"xyz")
    with pytest.raises(Finding, match="KeyError"):
        fuzz(target, random.Random(1), rounds=100)
