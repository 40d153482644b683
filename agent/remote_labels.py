"""What remote clusters' identities stand for, kept over a restart. Adapter: a file per cluster.

While a cluster is silent after a restart of ours, policy goes on by the labels it last told: what
they allowed stays allowed, and what they denied stays denied.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from agent.endpoint_store import write_atomically
from mesh.identities import Identities
from model.cluster import ClusterName
from model.identity import NumericIdentity
from model.labels import Labels
from wire.etcd.identity_v1 import parse_labels

log = logging.getLogger("isthmus.agent.remote")

WRITE_S = 5.0  # at most so often: a cluster may have 65,536 identities
LONG_LINES = 2_000  # of the journal
HEARD_S = 0.1  # but so soon, when one has told all of its own
JOURNAL = "journal.lines"
AT_ONCE = 32  # clusters: hundreds that change all the time take turns


def _restored(cluster: ClusterName) -> ClusterName:
    """Who says what was kept: comes after every cluster that speaks."""
    return ClusterName(f"~{cluster}")


class RemoteLabels:
    """The files, and the claims made of them.

    A cluster's file is written when it has told everything. What has changed since stands in the
    journal, where it is before anybody in the kernel has the identity (``flush``); when the journal
    is long, the files of those it speaks of are written anew.
    """

    def __init__(self, identities: Identities, directory: Path) -> None:
        self._identities, self._directory = identities, directory
        self._restored: set[ClusterName] = set()
        self._heard: set[ClusterName] = set()
        # Whose file lacks what no journal has; who waits longest comes first.
        self._dirty: dict[ClusterName, None] = {}
        self._since: dict[ClusterName, dict[NumericIdentity, str]] = {}  # in no file; "": gone
        self._lines: list[bytes] = []  # of these, what the journal lacks
        self._journal: BinaryIO | None = None  # opened when there is something to write
        self._length = 0  # lines of the journal
        self._folding = False  # it is long: all that it says goes into files
        self._soon = asyncio.Event()

    def restore(self) -> None:
        """Claim what the files say. A file that cannot be read is reported and passed over."""
        found: dict[ClusterName, dict[NumericIdentity, Labels]] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._directory.glob("*.json")):
                found[ClusterName(path.stem)] = _read(path)
        told = _read_journal(self._directory / JOURNAL)
        for cluster, number, text in told:
            said = found.setdefault(cluster, {})
            said.pop(number, None)
            if text:
                said[number] = parse_labels(text)
        for cluster in {cluster for cluster, _, _ in told}:
            _write(self._path(cluster), found[cluster])
        (self._directory / JOURNAL).unlink(missing_ok=True)
        for cluster, said in found.items():
            for number, labels in said.items():
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
        self._heard.add(cluster)
        self._dirty[cluster] = None
        self._soon.set()

    def changed(self, cluster: ClusterName, number: NumericIdentity, labels: Labels | None) -> None:
        """One of its identities has changed. What it lists at first goes to its file alone."""
        if cluster not in self._heard:
            self._dirty[cluster] = None
            return
        text = labels.text() if labels is not None else ""
        self._since.setdefault(cluster, {})[number] = text
        self._lines.append(msgspec.json.encode((cluster, number, text)) + b"\n")

    def removed(self, cluster: ClusterName) -> None:
        """It is no member any more."""
        self.heard(cluster)
        self._heard.discard(cluster)
        self._dirty.pop(cluster, None)
        self._since.pop(cluster, None)
        self._path(cluster).unlink(missing_ok=True)
        self._rewrite_journal()

    def flush(self) -> None:
        """Put on disk what came since the last time; a few lines."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            if self._journal is None:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._journal = (self._directory / JOURNAL).open("ab", buffering=0)
            self._journal.write(b"".join(lines))
        except OSError as error:
            self._close()
            log.warning('event=file-not-written error="%s"', error)
        self._length += len(lines)

    async def keep(self) -> None:
        """Write what changed, until cancelled."""
        while True:
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_S):
                    await self._soon.wait()
                await asyncio.sleep(HEARD_S)  # clusters that connect together are written together
            await self._write_some()

    async def _write_some(self) -> None:
        # The journal first: it must not say less than a file that is written before it is emptied.
        self.flush()
        # Before a cluster is heard to the end, its file knows more.
        self._folding = bool(self._since) and (self._folding or self._length >= LONG_LINES)
        named = chain(self._dirty, self._since if self._folding else ())
        waiting = (cluster for cluster in dict.fromkeys(named) if cluster not in self._restored)
        chosen = tuple(islice(waiting, AT_ONCE))
        if not chosen:
            return
        written = self._identities.of(chosen)
        since = {cluster: self._since.pop(cluster, {}) for cluster in written}
        for cluster in written:
            self._dirty.pop(cluster, None)
        files = {cluster: (self._path(cluster), said) for cluster, said in written.items()}
        for cluster, error in (await asyncio.to_thread(_write_each, files)).items():
            self._dirty[cluster] = None
            self._since[cluster] = since[cluster] | self._since.get(cluster, {})
            log.warning('event=file-not-written error="%s"', error)
        if any(since.values()):
            self._rewrite_journal()

    def _rewrite_journal(self) -> None:
        self._close()
        self._lines = []
        lines = [
            msgspec.json.encode((cluster, number, text)) + b"\n"
            for cluster, said in self._since.items()
            for number, text in said.items()
        ]
        try:
            self._length = len(lines)
            if lines:
                write_atomically(self._directory / JOURNAL, b"".join(lines))
            else:
                (self._directory / JOURNAL).unlink(missing_ok=True)
        except OSError as error:
            log.warning('event=file-not-written error="%s"', error)

    def _close(self) -> None:
        """Another file takes its place, or none."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _path(self, cluster: ClusterName) -> Path:
        return self._directory / f"{cluster}.json"


def _write_each(
    files: dict[ClusterName, tuple[Path, dict[NumericIdentity, Labels]]],
) -> dict[ClusterName, OSError]:
    """Those that could not be written."""
    failed: dict[ClusterName, OSError] = {}
    for cluster, (path, said) in files.items():
        try:
            _write(path, said)
        except OSError as error:
            failed[cluster] = error
    return failed


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


def _read_journal(path: Path) -> list[tuple[ClusterName, NumericIdentity, str]]:
    """Cluster, number, labels ("": gone), in the order they were told."""
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning('event=file-ignored path=%s error="%s"', path, error)
        return []
    for line in lines:
        try:
            cluster, number, text = msgspec.json.decode(line, type=tuple[str, int, str])
        except msgspec.MsgspecError as error:  # a line that was cut off by a kill
            log.warning('event=line-ignored path=%s error="%s"', path, error)
            continue
        found.append((ClusterName(cluster), NumericIdentity(number), text))
    return found
