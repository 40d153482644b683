"""A table whose past can be asked: an event is read later than it happened. Pure."""

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class History(Generic[K, V]):
    """Values by key, each with the time until which it held."""

    def __init__(self) -> None:
        self._now: dict[K, V] = {}
        self._past: dict[K, list[tuple[int, V]]] = {}  # until when, in order
        self._retired: deque[tuple[int, K]] = deque()

    def put(self, key: K, value: V | None, at_ns: int) -> None:
        """From ``at_ns`` on the value is this; ``None``: there is none."""
        old = self._now.get(key)
        if old == value:
            return
        if old is not None:
            self._past.setdefault(key, []).append((at_ns, old))
            self._retired.append((at_ns, key))
        if value is None:
            self._now.pop(key, None)
        else:
            self._now[key] = value

    def get(self, key: K, at_ns: int) -> V | None:
        """What held at that time.

        A value counts for the time before it was known as well, back to its predecessor's end: a
        pod's first packets are faster than its name.
        """
        past = self._past.get(key)
        if past:
            for until_ns, value in past:
                if at_ns < until_ns:
                    return value
        return self._now.get(key)

    def now(self, key: K) -> V | None:
        """What holds."""
        return self._now.get(key)

    def forget(self, before_ns: int) -> None:
        """Nobody will ask for times before this."""
        while self._retired and self._retired[0][0] <= before_ns:
            _, key = self._retired.popleft()
            past = self._past[key]
            past.pop(0)
            if not past:
                del self._past[key]

    def __iter__(self) -> Iterator[K]:
        """Keys that have a value now."""
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)
