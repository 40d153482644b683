"""Progress of ``up``: a live line on a terminal, plain lines elsewhere. Adapter."""

from types import TracebackType

from rich.console import Console


class Progress:
    """Each step stays as a line; the live line says that it goes on."""

    def __init__(self, title: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status(f"{title}: starting") if self._live else None
        self._title = title

    @property
    def _live(self) -> bool:
        return self._console.is_terminal

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, cluster: str, text: str, seconds: float) -> None:
        """Something is done."""
        where = f"{cluster}: " if cluster else ""
        self._console.print(f"{seconds:6.1f} s  {where}{text}")
        if self._status is not None:
            self._status.update(f"{self._title}: {where}{text}")
