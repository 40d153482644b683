"""The directory that says which remote clusters there are. Adapter (reads files).

A file whose text contains ``endpoints:`` describes the cluster of its name; everything else may lie
beside it. A mounted secret is replaced by swapping a link, so nothing here trusts a file's name to
mean the same file twice: each round looks at what the name leads to now.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kvstore.config import StoreConfig, StoreConfigError, parse_store_config
from model.cluster import ClusterName, parse_cluster_name

INTERVAL_S = 0.25  # 250 clusters cost 250 stat calls a round, about a millisecond


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """One cluster as configured; ``digest`` changes when its text does."""

    cluster: ClusterName
    digest: str
    config: StoreConfig


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
        self._files: dict[Path, tuple[tuple[int, int, int], RemoteConfig | str | None]] = {}

    def read(self) -> Directory:
        """The directory now. A missing directory is an empty one."""
        clusters: dict[ClusterName, RemoteConfig] = {}
        problems = []
        for path in sorted(self._path.iterdir()) if self._path.is_dir() else ():
            match self._file(path):
                case RemoteConfig() as remote if remote.cluster != self._own:
                    clusters[remote.cluster] = remote
                case str() as problem:
                    problems.append(problem)
        return Directory(clusters, tuple(problems))

    async def changes(self, interval_s: float = INTERVAL_S) -> AsyncIterator[Directory]:
        """The directory at once, and again after every change of meaning."""
        last: Directory | None = None
        while True:
            now = self.read()
            if now != last:
                yield now
                last = now
            await asyncio.sleep(interval_s)

    def _file(self, path: Path) -> RemoteConfig | str | None:
        try:
            stat = path.stat()
            if not path.is_file():
                return None
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            known = self._files.get(path)
            if known is None or known[0] != seen:
                known = (seen, _describe(path))
                self._files[path] = known
            return known[1]
        except OSError:  # it vanished between listing and reading
            self._files.pop(path, None)
            return None


def _describe(path: Path) -> RemoteConfig | str | None:
    data = path.read_bytes()
    if b"endpoints:" not in data:
        return None
    try:
        name = parse_cluster_name(path.name)
        config = parse_store_config(data, str(path))
    except StoreConfigError as error:
        return str(error)
    except ValueError as error:
        return f"{path}: {error}"
    return RemoteConfig(name, hashlib.sha256(data).hexdigest(), config)
