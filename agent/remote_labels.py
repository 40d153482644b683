"""What remote clusters' identities stand for, kept over a restart. Adapter: a file per cluster.

While a cluster is silent after a restart of ours, policy goes on by the labels it last told: what
they allowed stays allowed, and what they denied stays denied.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from itertools import islice
from pathlib import Path

import msgspec

from agent.endpoint_store import write_atomically
from mesh.identities import Identities
from model.cluster import ClusterName
from model.identity import NumericIdentity
from model.labels import Labels
from wire.etcd.identity_v1 import parse_labels

log = logging.getLogger("isthmus.agent.remote")

WRITE_S = 5.0  # at most so often: a cluster may have 65,536 identities
AT_ONCE = 32  # clusters: hundreds that change all the time take turns


def _restored(cluster: ClusterName) -> ClusterName:
    """Who says what was kept: comes after every cluster that speaks."""
    return ClusterName(f"~{cluster}")


class RemoteLabels:
    """The files, and the claims made of them."""

    def __init__(self, identities: Identities, directory: Path) -> None:
        self._identities, self._directory = identities, directory
        self._restored: set[ClusterName] = set()
        self._dirty: dict[ClusterName, None] = {}  # who waits longest comes first

    def restore(self) -> None:
        """Claim what the files say. A file that cannot be read is reported and passed over."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._directory.glob("*.json")):
                cluster = ClusterName(path.stem)
                for number, labels in _read(path).items():
                    self._identities.put(number, _restored(cluster), labels)
                self._restored.add(cluster)

    def configured(self, names: Collection[ClusterName]) -> None:
        """Which clusters are members now."""
        for cluster in self._restored - set(names):
            self.removed(cluster)

    def heard(self, cluster: ClusterName) -> None:
        """It has told all its identities: what was kept beside them counts no more."""
        if cluster in self._restored:
            self._restored.discard(cluster)
            self._identities.drop_cluster(_restored(cluster))
        self._dirty[cluster] = None

    def changed(self, cluster: ClusterName) -> None:
        """Something of it has changed."""
        self._dirty[cluster] = None

    def removed(self, cluster: ClusterName) -> None:
        """It is no member any more."""
        self.heard(cluster)
        self._dirty.pop(cluster, None)
        self._path(cluster).unlink(missing_ok=True)

    async def keep(self) -> None:
        """Write what changed, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            # Before a cluster is heard to the end, its file knows more.
            waiting = (cluster for cluster in self._dirty if cluster not in self._restored)
            for cluster, said in self._identities.of(tuple(islice(waiting, AT_ONCE))).items():
                self._dirty.pop(cluster, None)
                try:
                    await asyncio.to_thread(_write, self._path(cluster), said)
                except OSError as error:
                    self._dirty[cluster] = None
                    log.warning('event=file-not-written error="%s"', error)

    def _path(self, cluster: ClusterName) -> Path:
        return self._directory / f"{cluster}.json"


def _write(path: Path, said: dict[NumericIdentity, Labels]) -> None:
    texts = {str(number): labels.text() for number, labels in said.items()}
    write_atomically(path, msgspec.json.encode(texts))


def _read(path: Path) -> dict[NumericIdentity, Labels]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[int, str])
    except (OSError, msgspec.MsgspecError) as error:
        log.warning('event=file-ignored path=%s error="%s"', path, error)
        return {}
    return {NumericIdentity(number): parse_labels(text) for number, text in found.items()}
