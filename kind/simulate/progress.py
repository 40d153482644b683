"""How far a rehearsal has come: bars on a terminal, a line per phase elsewhere. Adapter."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


class Bars:
    """One bar per phase; everything goes to standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = (
            Progress(
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
            )
            if self._console.is_terminal
            else None
        )
        self._task: TaskID | None = None
        self._text, self._done, self._since_s = "", 0, 0.0

    def __enter__(self) -> "Bars":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        if self._live is not None:
            self._live.stop()

    def phase(self, text: str, total: int) -> None:
        """The next phase begins; ``total`` steps make it."""
        self._finish()
        self._text, self._done, self._since_s = text, 0, time.monotonic()
        if self._live is not None:
            self._task = self._live.add_task(text, total=total)

    def advance(self, steps: int = 1) -> None:
        """So many steps more."""
        self.reach(self._done + steps)

    def reach(self, done: int) -> None:
        """So many steps in all."""
        self._done = done
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done)

    def _finish(self) -> None:
        if self._text and self._live is None:
            took_s = time.monotonic() - self._since_s
            self._console.print(f"{took_s:6.1f} s  {self._text}: {self._done}")
