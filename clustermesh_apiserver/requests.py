"""What this process's own pages are asked, in the words of Cluster Mesh's API limiter. Pure.

We limit nothing: limits are 0, which means none, and nobody waits.
"""

from dataclasses import dataclass, field

from telemetry.metrics import Counter, Family, family


@dataclass(slots=True)
class _Call:
    in_flight: int = 0
    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Requests:
    """By path."""

    processed: Counter = field(
        default_factory=lambda: Counter(("api_call", "outcome", "return_code"))
    )
    calls: dict[str, _Call] = field(default_factory=dict)

    def begin(self, call: str) -> None:
        """A request has come."""
        self.calls.setdefault(call, _Call()).in_flight += 1

    def end(self, call: str, status: int, seconds: float) -> None:
        """It has been answered."""
        found = self.calls[call]
        found.in_flight -= 1
        found.count += 1
        found.seconds += seconds
        self.processed.add(call, "success" if status < 400 else "fail", str(status))

    def families(self, prefix: str) -> list[Family]:
        """The five families."""
        name = f"{prefix}api_limiter_"

        def gauge(last: str, text: str, **values: dict[str, float]) -> Family:
            samples = [
                ({"api_call": call, "value": word.replace("_", "-")}, value)
                for word, by_call in values.items()
                for call, value in sorted(by_call.items())
            ]
            return family(name + last, "gauge", text, samples)

        calls = self.calls.items()
        none = dict.fromkeys(self.calls, 0.0)
        mean = {c: f.seconds / f.count for c, f in calls if f.count}
        return [
            self.processed.family(f"{name}processed_requests_total", "Requests answered"),
            gauge(
                "processing_duration_seconds",
                "How long an answer takes",
                mean=mean,
                estimated=mean,
            ),
            gauge("rate_limit", "Requests per second; 0: no limit", limit=none, burst=none),
            gauge(
                "requests_in_flight",
                "Requests that are being answered; limit 0: none",
                in_flight={c: float(f.in_flight) for c, f in calls},
                limit=none,
            ),
            gauge(
                "wait_duration_seconds",
                "How long requests wait before they are answered",
                mean=none,
                min=none,
                max=none,
            ),
        ]
