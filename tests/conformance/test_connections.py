"""Connections are written into Secrets of a real API server, and nothing else of them changes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kube import connections
from kube.client import HttpClient
from kube.connections import KVSTOREMESH_SECRET, Connection
from kvstore.config import parse_store_config
from tests.support.lab_api import lab_api

pytestmark = pytest.mark.root

SPACE = "kube-system"
OURS = b"endpoints:\n- https://192.0.2.1:2379\ntrusted-ca-file: /ca\n"
THEIRS = b"endpoints:\n- https://192.0.2.9:2379\ntrusted-ca-file: /ca\n"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[HttpClient]:
    async with lab_api(tmp_path) as api, await api.connect() as connected:
        yield connected


async def ttl(client: HttpClient, secret: str = connections.CLUSTERS_SECRET) -> float | None:
    found = await connections.read(client, SPACE, secret)
    return parse_store_config(found.data["oslo"], secret).cache_ttl_s


async def test_certificates_anew_keep_the_time_for_stale_data(client: HttpClient) -> None:
    """A second join replaces certificates, and not what `connect --cache-ttl` has set."""
    await connections.put(client, SPACE, Connection("oslo", 2, THEIRS, cache_ttl="7m"))
    assert await ttl(client) == 420
    with_key = Connection("oslo", 2, THEIRS, {"ca": b"a", "crt": b"b", "key": b"c"})
    assert await connections.put(client, SPACE, with_key)
    assert await ttl(client) == 420
    assert not await connections.put(client, SPACE, with_key)
    copied = Connection("oslo", 2, THEIRS, {"ca": b"a", "crt": b"b", "key": b"c"}, OURS)
    assert await connections.put(client, SPACE, copied)
    assert await ttl(client) == await ttl(client, KVSTOREMESH_SECRET) == 420
