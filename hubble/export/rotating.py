"""A file that is put aside when it is full. Adapter; every call may take as long as the disk does.

``events.log`` becomes ``events-2026-01-31T12-00-00.000.log``, with ``.gz`` when compressed. Lines
are whole: what could be written of a batch only in part is taken back.
"""

import gzip
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from hubble.export.settings import STDOUT, Rotation

_MEGABYTE = 1 << 20


class RotatingFile:
    """Opened at the first write; belongs to one writer."""

    def __init__(self, path: Path, rotation: Rotation) -> None:
        self._path, self._rotation = path, rotation
        self._fd = -1

    def write(self, lines: bytes) -> None:
        """Append whole lines. ``OSError``: none of them is in the file."""
        size = self._size()
        if size and size + len(lines) > self._rotation.size_mb * _MEGABYTE:
            self._put_aside()
            size = self._size()
        done = 0
        try:
            while done < len(lines):
                done += os.write(self._fd, lines[done:])
        except OSError:
            if os.fstat(self._fd).st_size == size + done:
                os.ftruncate(self._fd, size)
            raise

    def _size(self) -> int:
        """Of the file, which is opened if it is not, or was taken away."""
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink:
            self.close()
        if self._fd < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
        return os.fstat(self._fd).st_size

    def _put_aside(self) -> None:
        self.close()
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        backup = self._path.with_name(f"{self._path.stem}-{moment}{self._path.suffix}")
        self._path.rename(backup)
        if self._rotation.compress:
            _compress(backup)
        if self._rotation.backups:  # 0: all are kept
            for old in self.backups()[: -self._rotation.backups]:
                old.unlink(missing_ok=True)

    def backups(self) -> list[Path]:
        """Oldest first."""
        stem, suffix = self._path.stem, self._path.suffix
        found = self._path.parent.glob(f"{stem}-????-??-??T??-??-??.???{suffix}*")
        return sorted(found, key=lambda path: path.name.removesuffix(".gz"))

    def close(self) -> None:
        """Release the descriptor; a later write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _compress(path: Path) -> None:
    target = path.with_name(path.name + ".gz")
    try:
        with path.open("rb") as plain, gzip.open(target, "wb") as packed:
            shutil.copyfileobj(plain, packed)
    except OSError:
        target.unlink(missing_ok=True)
        raise
    path.unlink()


class StandardOutput:
    """In place of a file."""

    def write(self, lines: bytes) -> None:
        """``OSError``."""
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """It stays open."""


def open_target(path: str, rotation: Rotation) -> RotatingFile | StandardOutput:
    """Where an export is written to."""
    return StandardOutput() if path == STDOUT else RotatingFile(Path(path), rotation)
