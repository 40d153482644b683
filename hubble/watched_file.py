"""A file of settings that is read again when it changes. Adapter."""

from pathlib import Path


class WatchedFile:
    """``changed()`` gives the file's bytes when they are others than before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._data: bytes | None = None

    def changed(self) -> bytes | None:
        """``None``: nothing new. ``OSError``: it cannot be read; the next call tries again."""
        found = self.path.stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return None
        data = self.path.read_bytes()
        self._stamp = stamp
        if data == self._data:
            return None
        self._data = data
        return data
