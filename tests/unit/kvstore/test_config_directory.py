"""The directory that says which remote clusters there are."""

import asyncio
import os
from pathlib import Path

import pytest

from kvstore.config_directory import ConfigDirectory
from model.cluster import ClusterName

OWN = ClusterName("berlin")


def text(port: int = 2379) -> str:
    return f"endpoints:\n- http://127.0.0.1:{port}\n"


@pytest.fixture
def directory(tmp_path: Path) -> ConfigDirectory:
    return ConfigDirectory(tmp_path, OWN)


def port(directory: ConfigDirectory, name: str) -> int:
    (endpoint,) = directory.read().clusters[ClusterName(name)].config.targets()
    return endpoint.port


def test_only_files_with_endpoints_are_clusters(directory: ConfigDirectory, tmp_path: Path) -> None:
    """Certificates, folders and a file of our own name lie beside them and mean nothing."""
    (tmp_path / "paris").write_text(text())
    (tmp_path / "berlin").write_text(text())
    (tmp_path / "common-etcd-client.crt").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "rome").mkdir()
    now = directory.read()
    assert set(now.clusters) == {"paris"}
    assert now.problems == ()


def test_a_missing_directory_is_an_empty_one(tmp_path: Path) -> None:
    """A node without a mesh has none."""
    now = ConfigDirectory(tmp_path / "nothing", OWN).read()
    assert not now.clusters
    assert now.problems == ()


def test_a_swapped_link_is_noticed(directory: ConfigDirectory, tmp_path: Path) -> None:
    """Kubernetes replaces a mounted secret by swapping one link below all visible names."""
    for version, number in (("..1", 1111), ("..2", 2222)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "paris").write_text(text(number))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "paris").symlink_to("..data/paris")
    assert port(directory, "paris") == 1111
    (tmp_path / "..new").symlink_to("..2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert port(directory, "paris") == 2222


def test_the_same_text_written_again_is_no_change(
    directory: ConfigDirectory, tmp_path: Path
) -> None:
    """What counts is the content."""
    (tmp_path / "paris").write_text(text())
    before = directory.read()
    (tmp_path / "paris").unlink()
    (tmp_path / "paris").write_text(text())
    assert directory.read() == before


def test_a_change_within_one_tick_of_the_clock_is_noticed(
    directory: ConfigDirectory, tmp_path: Path
) -> None:
    """Same size, same inode, same time: a young file is read anyway."""
    path = tmp_path / "paris"
    path.write_text(text(1111))
    stamp = path.stat().st_mtime_ns
    assert port(directory, "paris") == 1111
    path.write_text(text(2222))
    os.utime(path, ns=(stamp, stamp))
    assert port(directory, "paris") == 2222


@pytest.mark.parametrize(
    ("broken", "says"),
    [("endpoints: [", "not a store's configuration"), ("", "is empty: remove the file")],
)
def test_a_file_that_becomes_unusable_stays_in_force(
    directory: ConfigDirectory, tmp_path: Path, broken: str, says: str
) -> None:
    """A mistake disconnects nobody; it is said, and is over when the file is good again."""
    path = tmp_path / "paris"
    path.write_text(text(1111))
    assert port(directory, "paris") == 1111
    path.write_text(broken)
    assert port(directory, "paris") == 1111
    (problem,) = directory.read().problems
    assert says in problem
    assert str(path) in problem
    path.write_text(text(2222))
    assert port(directory, "paris") == 2222
    assert directory.read().problems == ()


def test_a_removed_file_removes_its_cluster(directory: ConfigDirectory, tmp_path: Path) -> None:
    """Also when it had become unusable before."""
    path = tmp_path / "paris"
    path.write_text(text())
    directory.read()
    path.write_text("endpoints: [")
    directory.read()
    path.unlink()
    now = directory.read()
    assert not now.clusters
    assert now.problems == ()


def test_a_bad_name_is_named(directory: ConfigDirectory, tmp_path: Path) -> None:
    """A file whose name can be no cluster's is told with the remedy; others are read."""
    (tmp_path / "Paris").write_text(text())
    (tmp_path / "rome").write_text(text())
    now = directory.read()
    assert set(now.clusters) == {"rome"}
    assert len(now.problems) == 1
    assert 'cluster name "Paris" is not valid' in now.problems[0]


async def test_changes_are_told_once(directory: ConfigDirectory, tmp_path: Path) -> None:
    """At once, and after each change of meaning."""
    changes = directory.changes(interval_s=0.01)
    async with asyncio.timeout(10):
        assert not (await anext(changes)).clusters
        (tmp_path / "paris").write_text(text())
        assert set((await anext(changes)).clusters) == {"paris"}
        (tmp_path / "certificate").write_text("x")
        (tmp_path / "rome").write_text(text())
        assert set((await anext(changes)).clusters) == {"paris", "rome"}
        (tmp_path / "paris").unlink()
        assert set((await anext(changes)).clusters) == {"rome"}
    await changes.aclose()
