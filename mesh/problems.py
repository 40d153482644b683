"""What is wrong with the claims about a key, in words. Pure."""

from typing import Generic, TypeVar

K = TypeVar("K")


class Problems(Generic[K]):
    """Current sentences by key, and how many there have ever been."""

    def __init__(self) -> None:
        self.current: dict[K, tuple[str, ...]] = {}
        self.total = 0
        self.last = ""

    def set(self, key: K, sentences: tuple[str, ...]) -> None:
        """Replace the sentences about a key; a new one is counted."""
        known = self.current.get(key, ())
        for sentence in sentences:
            if sentence not in known:
                self.total += 1
                self.last = sentence
        if sentences:
            self.current[key] = sentences
        elif known:
            del self.current[key]

    def drop(self, key: K) -> None:
        """The key is in order, or gone."""
        self.current.pop(key, None)
