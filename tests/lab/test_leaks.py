"""The proof for userspace WireGuard: each row under the sniffer in a lab of two joined clusters, in
both routing modes.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support import encrypted_lab, leak_matrix
from tests.support import lab as labs
from tests.support.canary_traffic import Flow
from tests.support.encrypted_lab import EncryptedLab

NATIVE = "native"
pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(autouse=True)
def _no_leak() -> None:
    """In place of what watches every other test: a cell has sniffers of its own, which see on
    purpose what is said to a stranger.
    """


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(encrypted_lab.ROUTING))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[EncryptedLab]:
    made = encrypted_lab.start("l", request.param)
    world = EncryptedLab(made)
    try:
        await world.begin()
        yield world
    finally:
        await world.close()
        labs.stop(made)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", [NATIVE], indirect=True)
async def test_the_kind_changes_without_a_tunnel(world: EncryptedLab) -> None:
    """To clear text and back under traffic: no connection breaks, and as soon as it is done nothing
    is seen any more.
    """
    flows = (
        Flow(world.near, world.far.address, leak_matrix.PORT),
        Flow(world.far, world.near.address, leak_matrix.PORT, leak_matrix.DATAGRAM),
    )
    async with leak_matrix.flowing(*flows):
        await world.migrate("off")
        assert (await world.stances()) == {("off", "off")}
        (sniffer,) = world.sniffers()
        await leak_matrix.advance(flows)  # in clear text, for the sniffer
        seen = await asyncio.to_thread(sniffer.stop)
        assert any("canary" in leak for leak in seen.leaks), "clear text is not seen"
        await world.migrate("wireguard")
        assert (await world.stances()) == {("wireguard", "off")}
        with leak_matrix.watched(world):
            await asyncio.sleep(2)  # and many in cipher: that nothing shows takes time to say
    assert [flow.lost for flow in flows] == [0, 0]


@pytest.mark.parametrize("row", list(leak_matrix.ROWS))
async def test_nothing_is_seen_in_clear_text(world: EncryptedLab, row: str) -> None:
    """Neither canary nor pod address nor tunnel, while this happens; and no connection breaks."""
    await leak_matrix.run(world, row)
