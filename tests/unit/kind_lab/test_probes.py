"""kind.kubelet.probes: when a verdict is spoken."""

import contextlib
from typing import Any

import pytest

from kind.kubelet import probes


async def verdicts(answers: str, eager: bool, **spec: Any) -> list[tuple[bool, int]]:
    """What is said for a sequence of attempts (``+`` good, ``-`` bad), each with its attempt.

    A period is a tick of a clock that the attempts advance; nothing waits.
    """
    probe = probes.parse({"periodSeconds": 1, **spec})
    tick = 0
    said: list[tuple[bool, int]] = []

    async def once() -> str:
        nonlocal tick
        if tick == len(answers):
            raise EOFError
        tick += 1
        return "" if answers[tick - 1] == "+" else "bad"

    async def verdict(good: bool, why: str) -> None:
        assert good == (not why)
        said.append((good, tick))

    async def pause(_: float) -> None:
        return

    with contextlib.suppress(EOFError):
        await probes.watch(probe, once, verdict, eager, lambda: float(tick), pause)
    return said


@pytest.mark.parametrize(
    ("answers", "spec", "expected"),
    [
        ("+", {}, [(True, 1)]),
        ("+++", {}, [(True, 1)]),
        ("--+", {}, [(True, 3)]),
        ("+--+", {}, [(True, 1)]),
        ("+---+", {}, [(True, 1), (False, 4), (True, 5)]),
        ("+-", {"failureThreshold": 1}, [(True, 1), (False, 2)]),
        ("++", {"successThreshold": 2}, [(True, 2)]),
        ("+-+++", {"successThreshold": 2}, [(True, 4)]),
        ("---", {}, [(False, 3)]),
        ("------", {}, [(False, 3)]),
    ],
)
async def test_readiness(
    answers: str, spec: dict[str, Any], expected: list[tuple[bool, int]]
) -> None:
    """A verdict needs its threshold of attempts in a row and is said once."""
    assert await verdicts(answers, eager=True, **spec) == expected


async def test_liveness_counts_anew() -> None:
    """After a failure that ended the container the count begins again."""
    assert await verdicts("---" * 2, eager=False) == [(False, 3), (False, 6)]
