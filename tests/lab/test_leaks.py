"""The proof for userspace WireGuard: each row under the sniffer in a lab of two joined clusters, in
both routing modes.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support import encrypted_lab, leak_matrix
from tests.support import lab as labs
from tests.support.encrypted_lab import EncryptedLab

MODES = [
    pytest.param(mode, marks=pytest.mark.xdist_group(f"leaks-{mode}"))
    for mode in encrypted_lab.ROUTING
]
pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(autouse=True)
def _no_leak() -> None:
    """In place of what watches every other test: a cell has sniffers of its own, which see on
    purpose what is said to a stranger.
    """


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=MODES)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[EncryptedLab]:
    made = encrypted_lab.start("l", request.param)
    world = EncryptedLab(made)
    try:
        await world.begin()
        yield world
    finally:
        await world.close()
        labs.stop(made)


@pytest.mark.parametrize("row", list(leak_matrix.ROWS))
async def test_nothing_is_seen_in_clear_text(world: EncryptedLab, row: str) -> None:
    """Neither canary nor pod address nor tunnel, while this happens; and no connection breaks."""
    await leak_matrix.run(world, row)
