"""What is wrong with the claims about a key, in words. Pure."""

from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

KEPT = 1000  # sentences that are kept in full; a peer that lies a million times costs numbers only


class Violation(str):
    """A sentence about a peer that said what it may not say."""

    __slots__ = ("cluster", "kind")

    kind: str
    cluster: str

    def __new__(cls, kind: str, cluster: str, sentence: str) -> "Violation":
        """``kind`` is a word for counting."""
        made = super().__new__(cls, sentence)
        made.kind, made.cluster = kind, cluster
        return made


@dataclass(slots=True)
class Tally:
    """How often one peer broke one rule."""

    total: int = 0
    example: str = ""  # the latest


class Problems(Generic[K]):
    """Current sentences by key, and how many there have ever been."""

    def __init__(self) -> None:
        self.current: dict[K, tuple[str, ...]] = {}  # at most ``KEPT`` keys
        self._known: dict[K, tuple[int, ...]] = {}  # fingerprints of all current sentences
        self.total = 0
        self.last = ""
        self.violations: dict[tuple[str, str], Tally] = {}  # by cluster and kind

    def set(self, key: K, sentences: tuple[str, ...]) -> None:
        """Replace the sentences about a key; a new one is counted."""
        if not sentences:
            if key in self._known:
                self.drop(key)
            return
        known = self._known.get(key, ())
        for sentence in sentences:
            if hash(sentence) not in known:
                self._count(sentence)
        self._known[key] = tuple(hash(s) for s in sentences)
        if key in self.current or len(self.current) < KEPT:
            self.current[key] = sentences

    def _count(self, sentence: str) -> None:
        self.total += 1
        self.last = sentence
        if isinstance(sentence, Violation):
            tally = self.violations.setdefault((sentence.cluster, sentence.kind), Tally())
            tally.total += 1
            tally.example = str(sentence)

    def drop(self, key: K) -> None:
        """The key is in order, or gone."""
        self._known.pop(key, None)
        self.current.pop(key, None)

    def forget(self, cluster: str) -> None:
        """A cluster is no member any more: its tallies go."""
        for found in [k for k in self.violations if k[0] == cluster]:
            del self.violations[found]

    def __len__(self) -> int:
        """Keys with a problem."""
        return len(self._known)
