"""When to try again: the longer it has not worked the later, and never all at once. Pure."""

from dataclasses import dataclass

FIRST_S, CAP_S = 0.2, 10.0  # an attempt itself goes on for 5 s
STEADY_S = 30.0  # a connection that stood as long has worked


@dataclass(slots=True)
class Backoff:
    """Delays between attempts. A connection that comes and goes counts as one that fails."""

    first_s: float = FIRST_S
    cap_s: float = CAP_S
    steady_s: float = STEADY_S
    failures: int = 0  # in a row

    def next_s(self, stood_s: float, chance: float) -> float:
        """After an attempt whose connection stood ``stood_s``; ``chance`` is from 0 to 1.

        Thousands that lost the same store spread over the whole delay: half of it is chance.
        """
        if stood_s >= self.steady_s:
            self.failures = 0
        delay = min(self.first_s * (1 << min(self.failures, 16)), self.cap_s)
        self.failures += 1
        return delay * (0.5 + chance)

    def reset(self) -> None:
        """Something was mended."""
        self.failures = 0
