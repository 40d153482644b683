"""The proof for the kernel's ways to encrypt: each row under the sniffer, with real agents, in both
routing modes.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support import leak_matrix
from tests.support.encrypted_pair import EncryptedPair, encrypted_pair

pytestmark = [pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="module")]

WAYS = [
    pytest.param((encryption, routing), marks=pytest.mark.part(encryption))
    for encryption in ("wireguard", "ipsec")
    for routing in ("tunnel", "native")
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EncryptedPair]:
    async with encrypted_pair(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS, ids=" ".join)
async def world(request: pytest.FixtureRequest, pair: EncryptedPair) -> EncryptedPair:
    await pair.change(*request.param)
    return pair


@pytest.mark.parametrize("row", list(leak_matrix.ROWS))
async def test_nothing_is_seen_in_clear_text(world: EncryptedPair, row: str) -> None:
    """Neither canary nor pod address nor tunnel, while this happens; and no connection breaks."""
    await leak_matrix.run(world, row)
