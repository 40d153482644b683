"""Which authorities etcd itself is to trust."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.check import authorities
from certs.issue import create_ca
from clustermesh_apiserver import own_trust

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OURS, NEXT, FORMER, PEER = (create_ca(NOW).certificate for _ in range(4))


def write(tmp_path: Path, bundle: bytes, **own: bytes) -> set[str]:
    """The authorities that etcd is told of."""
    (tmp_path / "bundle").write_bytes(bundle)
    directory = tmp_path / "own"
    directory.mkdir()
    for name, pem in own.items():
        (directory / (name.replace("_", "-") + ".crt")).write_bytes(pem)
    own_trust.write(str(tmp_path / "bundle"), str(directory), str(tmp_path / "out"))
    return set(authorities((tmp_path / "out/ca.crt").read_bytes()))


def ids(*pem: bytes) -> set[str]:
    return set(authorities(b"".join(pem)))


def test_others_are_left_out(tmp_path: Path) -> None:
    """What other clusters' authorities sign is no business of etcd."""
    assert write(tmp_path, OURS + PEER, ca=OURS) == ids(OURS)


def test_all_of_ours_that_the_store_trusts(tmp_path: Path) -> None:
    """While they rotate there are several, and one that has left the bundle stays out."""
    found = write(tmp_path, PEER + NEXT + OURS, ca=OURS, next_ca=NEXT, former_ca=FORMER)
    assert found == ids(OURS, NEXT)


@pytest.mark.parametrize("bundle", [PEER, b""])
def test_none_of_ours(tmp_path: Path, bundle: bytes) -> None:
    """A bundle that would shut everybody out is told, with what to do."""
    with pytest.raises(ValueError, match="bundle: "):
        write(tmp_path, bundle, ca=OURS)
