"""The main job, end to end: the story of ``isthmus lab demo``, in both routing modes, by steps."""

from collections.abc import Iterator

import pytest

from kind import story
from tests.support import lab as labs

pytestmark = [pytest.mark.root, pytest.mark.lab]
NATIVE = ("--set=routing-mode=native", "--set=auto-direct-node-routes=true")
MODES = [
    pytest.param((), id="tunnel"),
    pytest.param(NATIVE, id="native"),
]


@pytest.fixture(scope="module", params=MODES)
def told(request: pytest.FixtureRequest) -> Iterator[dict[int, story.Step]]:
    """The story, told once on a lab of its own."""
    made = labs.start("s", *request.param)
    try:
        yield {step.number: step for step in story.tell(story.Mesh(made.name))}
    finally:
        labs.stop(made)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", range(1, len(story.STEPS) + 1))
def test_step_holds(told: dict[int, story.Step], number: int) -> None:
    """Every check of the step is true."""
    step = told[number]
    print(step.figures)
    assert [what for what, good in step.checks if not good] == []
    assert step.held
