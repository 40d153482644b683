"""Volumes as directories of the node. Adapter to the file system.

Files made from API objects appear all at once: they are written into a new directory and the link
``..data`` is turned to it, as the real kubelet does and as programs that watch a ConfigMap expect.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kind.kubelet.podspec import SpecError
from kind.runtime import namespaces

Json = dict[str, Any]

DATA_LINK = "..data"


def write_files(directory: Path, files: Mapping[str, bytes], version: int) -> bool:
    """Make ``directory`` show exactly these files, in one step; false when it already does.

    ``version`` names the new generation; any number that was not used before.
    """
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / DATA_LINK
    if link.is_symlink() and _read_files(link) == dict(files):
        return False
    old = os.readlink(link) if link.is_symlink() else ""
    generation = directory / f"..{version}"
    for name, content in files.items():
        path = generation / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    generation.mkdir(exist_ok=True)
    # One rename: a reader sees all of the old files or all of the new ones.
    temporary = directory / "..data_tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(generation.name)
    os.replace(temporary, link)
    top = {name.split("/")[0] for name in files}
    for name in top:
        entry = directory / name
        if not entry.is_symlink():
            entry.symlink_to(f"{DATA_LINK}/{name}")
    for entry in directory.iterdir():
        if entry.is_symlink() and entry.name != DATA_LINK and entry.name not in top:
            entry.unlink()
    if old and old != generation.name:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _read_files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def host_path(node_root: str, volume: Json) -> str:
    """The place of a hostPath volume below the node's root, made when its type says so."""
    ref = volume["hostPath"]
    place = namespaces.resolve_in(node_root, ref["path"])
    kind = ref.get("type") or ""
    if kind in ("File", "Socket", "CharDevice", "BlockDevice"):
        if not os.path.exists(place):
            raise SpecError(f"hostPath {ref['path']} does not exist on the node (type {kind})")
    elif kind == "FileOrCreate":
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).touch()
    elif kind == "Directory":
        if not os.path.isdir(place):
            raise SpecError(f"hostPath {ref['path']} is not a directory of the node")
    elif not os.path.exists(place):
        os.makedirs(place)
    return place


def remove_tree(directory: Path) -> None:
    """Remove a pod's directory; none is no error."""
    shutil.rmtree(directory, ignore_errors=True)
