"""Stores that a file's tests share; a file that needs another says so by the same name."""

from collections.abc import Iterator

import pytest

from tests.support.etcd import Etcd, mesh_etcd, plain_etcd


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    """An etcd of its own for each file, without users."""
    with plain_etcd() as found:
        yield found


@pytest.fixture(scope="module")
def secured() -> Iterator[Etcd]:
    """As clusters have it: TLS, users, a reader who may read the mesh's prefixes."""
    with mesh_etcd("c1") as found:
        yield found
