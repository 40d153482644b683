"""What a person may ask about a table. Pure; written by ``reconcile.table`` only."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RowFailure:
    """A row that could not be written or removed."""

    error: str
    attempts: int
    since_s: float  # clock of the loop
    next_try_s: float


@dataclass(slots=True)
class TableStatus:
    """Counters since start, and what fails now."""

    name: str
    rows: int = 0  # as last known in the target
    rounds: int = 0
    full_reads: int = 0
    written: int = 0
    removed: int = 0
    failures: int = 0  # rows, all time
    pruning: bool = False  # every input has said "in sync"
    error: str = ""  # the table as a whole cannot be reached
    failing: dict[str, RowFailure] = field(default_factory=dict)  # by the key's text

    @property
    def healthy(self) -> bool:
        """No row and not the table fails."""
        return not self.error and not self.failing

    def line(self, now_s: float) -> str:
        """One sentence for a health page."""
        if self.error:
            return f"degraded: {self.error}"
        if self.failing:
            oldest = min(self.failing.values(), key=lambda f: f.since_s)
            age = int(now_s - oldest.since_s)
            return f"degraded: {len(self.failing)} rows failing, oldest {age} s: {oldest.error}"
        return f"ok, {self.rows} rows"
