"""kind.kubelet.volumes and kind.runtime.namespaces: files as a pod sees them."""

import os
from pathlib import Path

import pytest

from kind.kubelet import volumes
from kind.kubelet.podspec import SpecError
from kind.runtime import namespaces


def shown(directory: Path) -> dict[str, str]:
    return {
        name: (directory / name).read_text()
        for name in os.listdir(directory)
        if not name.startswith("..")
    }


def test_files_change_in_one_step(tmp_path: Path) -> None:
    """A directory handle opened through ``..data`` keeps the old files, the path has the new."""
    volumes.write_files(tmp_path, {"a": b"1", "b": b"1"}, 1)
    before = os.readlink(tmp_path / "..data")
    assert volumes.write_files(tmp_path, {"a": b"2", "c": b"2"}, 2)
    assert shown(tmp_path) == {"a": "2", "c": "2"}
    assert os.readlink(tmp_path / "..data") != before
    assert [name for name in os.listdir(tmp_path) if name.startswith("..")] != []
    assert not (tmp_path / before).exists(), "the old generation is removed"


def test_same_files_are_left_alone(tmp_path: Path) -> None:
    """Nothing is touched when nothing changed: a watcher is not woken for nothing."""
    volumes.write_files(tmp_path, {"a": b"1"}, 1)
    link = os.readlink(tmp_path / "..data")
    assert not volumes.write_files(tmp_path, {"a": b"1"}, 2)
    assert os.readlink(tmp_path / "..data") == link


def test_empty_and_nested(tmp_path: Path) -> None:
    """An empty source gives an empty directory; a path with directories works."""
    volumes.write_files(tmp_path, {}, 1)
    assert shown(tmp_path) == {}
    volumes.write_files(tmp_path, {"d/e": b"x"}, 2)
    assert (tmp_path / "d" / "e").read_text() == "x"


def test_resolve_stays_inside(tmp_path: Path) -> None:
    """Links of a root are followed inside it, never out of it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "up").symlink_to("../../../../etc")
    root = str(tmp_path)
    assert namespaces.resolve_in(root, "/var/run/cilium") == f"{root}/run/cilium"
    assert namespaces.resolve_in(root, "/up/passwd") == f"{root}/etc/passwd"
    assert namespaces.resolve_in(root, "/../../etc") == f"{root}/etc"


def test_resolve_loop(tmp_path: Path) -> None:
    """A loop of links is an error and not a hang."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many"):
        namespaces.resolve_in(str(tmp_path), "/a/x")


def test_host_path_types(tmp_path: Path) -> None:
    """A missing directory is made, a missing file is only made when the type says so."""
    root = str(tmp_path)
    place = volumes.host_path(root, {"hostPath": {"path": "/a/b"}})
    assert os.path.isdir(place)
    file = volumes.host_path(root, {"hostPath": {"path": "/f", "type": "FileOrCreate"}})
    assert os.path.isfile(file)
    with pytest.raises(SpecError, match="/nope"):
        volumes.host_path(root, {"hostPath": {"path": "/nope", "type": "File"}})
    with pytest.raises(SpecError, match="/nope"):
        volumes.host_path(root, {"hostPath": {"path": "/nope", "type": "Directory"}})
