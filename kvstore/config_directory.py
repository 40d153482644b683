"""The directory that says which remote clusters there are. Adapter (reads files).

A file whose text contains ``endpoints:`` describes the cluster of its name; everything else may lie
beside it. A mounted secret is replaced by swapping a link, so nothing here trusts a file's name to
mean the same file twice: each round looks at what the name leads to now. A file that was good and
cannot be used any more is a mistake and no farewell: what it said before stays in force.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kvstore.config import StoreConfig, StoreConfigError, parse_store_config
from model.cluster import ClusterName, parse_cluster_name

# A file this young may change again within the same tick of its clock, so it is read again.
YOUNG_NS = 2_000_000_000
INTERVAL_S = 0.25  # 250 clusters cost 250 stat calls a round, 0.6 ms
PER_CLUSTER_S = 0.02


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """One cluster as configured; ``digest`` changes when its text does.

    ``files`` changes when its certificates do. That alone is no reason to connect again: whoever
    connects reads them anew.
    """

    cluster: ClusterName
    digest: str
    config: StoreConfig
    files: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Directory:
    """What the directory says: usable clusters, and a sentence for each unusable file."""

    clusters: Mapping[ClusterName, RemoteConfig]
    problems: tuple[str, ...]


class ConfigDirectory:
    """Reads the directory, again only where something changed."""

    def __init__(self, path: Path, own: ClusterName) -> None:
        self._path = path
        self._own = own
        self._files: dict[Path, _File] = {}
        self._certificates: frozenset[str] = frozenset()
        self._last: tuple[object, Directory] = (None, Directory({}, ()))

    def read(self) -> Directory:
        """The directory now. A missing directory is an empty one."""
        glance = self._glance()
        if glance is None or glance != self._last[0]:
            self._last = glance, self._read()
        return self._last[1]

    def _glance(self) -> object:
        """What looks the same while nothing has changed; ``None`` while something is young."""
        root = str(self._path)
        try:
            names = sorted(os.listdir(root))
        except OSError:
            return None
        found: list[tuple[str, int, int, int]] = []
        youngest = 0
        for path in (*(f"{root}/{name}" for name in names), *self._certificates):
            try:
                stat = os.stat(path)
            except OSError:
                found.append((path, 0, 0, 0))
                continue
            found.append((path, stat.st_mtime_ns, stat.st_ino, stat.st_size))
            youngest = max(youngest, stat.st_mtime_ns)
        return found if time.time_ns() - youngest >= YOUNG_NS else None

    def _read(self) -> Directory:
        clusters: dict[ClusterName, RemoteConfig] = {}
        problems = []
        known: dict[Path, tuple[int, int, int]] = {}  # clusters share their certificates
        paths = sorted(self._path.iterdir()) if self._path.is_dir() else []
        for path in self._files.keys() - set(paths):
            del self._files[path]
        for path in paths:
            found = self._file(path)
            if found.remote is not None and found.remote.cluster != self._own:
                files = tuple(_seen(Path(name), known) for name in found.remote.config.files)
                clusters[found.remote.cluster] = replace(found.remote, files=files)
            if found.problem:
                problems.append(found.problem)
        self._certificates = frozenset(map(str, known))
        return Directory(clusters, tuple(problems))

    async def changes(self, interval_s: float = INTERVAL_S) -> AsyncIterator[Directory]:
        """The directory at once, and again after every change of meaning."""
        last: Directory | None = None
        while True:
            now = self.read()
            if now is not last and now != last:
                yield now
                last = now
            # A look costs some microseconds per file: hundreds of clusters are looked at seldomer.
            await asyncio.sleep(max(interval_s, len(now.clusters) * PER_CLUSTER_S))

    def _file(self, path: Path) -> "_File":
        try:
            stat = path.stat()
            if not path.is_file():
                return _NOTHING
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            known = self._files.get(path, _NOTHING)
            if known.seen != seen or time.time_ns() - stat.st_mtime_ns < YOUNG_NS:
                known = _describe(path, seen, known.remote)
                self._files[path] = known
        except OSError:  # it vanished between listing and reading
            self._files.pop(path, None)
            return _NOTHING
        return known


@dataclass(frozen=True, slots=True)
class _File:
    seen: tuple[int, int, int] = (0, 0, 0)
    remote: RemoteConfig | None = None
    problem: str = ""


_NOTHING = _File()


def _seen(path: Path, known: dict[Path, tuple[int, int, int]]) -> tuple[int, int, int]:
    """What tells one content of a file from the next; zeros when there is none."""
    if path not in known:
        try:
            stat = path.stat()
            known[path] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            known[path] = (0, 0, 0)
    return known[path]


def _describe(path: Path, seen: tuple[int, int, int], before: RemoteConfig | None) -> _File:
    data = path.read_bytes()
    problem = ""
    if b"endpoints:" in data:
        try:
            name = parse_cluster_name(path.name)
            config = parse_store_config(data, str(path))
            return _File(seen, RemoteConfig(name, hashlib.sha256(data).hexdigest(), config))
        except StoreConfigError as error:
            problem = str(error)
        except ValueError as error:
            problem = f"{path}: {error}"
    elif data or before is None:
        return _File(seen)
    else:
        problem = f"{path} is empty: remove the file to disconnect from the cluster"
    if before is not None:
        problem += "; what the file said before stays in force"
    return _File(seen, before, problem)
