"""What is found in an object while it is read, and the path of each finding. Pure.

A reader asks a ``Node`` for what it expects there; what is not so is noted with the path of the
field, and reading goes on, so that a person sees all errors of an object at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one field of an object."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(slots=True)
class Notes:
    """Findings in the order of reading.

    ``errors`` make the object invalid. ``unknown`` fields are dropped by an API server, or the
    object is refused. ``warnings`` are for what is legal and probably not meant. ``unenforced``
    are fields that are understood but not enforced yet.
    """

    errors: list[Finding] = field(default_factory=list)
    unknown: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    unenforced: list[Finding] = field(default_factory=list)


def type_name(value: object) -> str:
    """As people who write YAML call it."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), (int, "a number"), (float, "a number"), (str, "a text"))
    return next(
        (name for kind, name in names if isinstance(value, kind)),
        "a list" if isinstance(value, list) else "a map",
    )


@dataclass(frozen=True, slots=True)
class Node:
    """One value of an object and where it stands."""

    value: object
    path: str
    notes: Notes

    def error(self, reason: str) -> None:
        """The object is invalid for this."""
        self.notes.errors.append(Finding(self.path, reason))

    def warn(self, reason: str) -> None:
        """Legal, and probably not what was meant."""
        self.notes.warnings.append(Finding(self.path, reason))

    def unenforced(self, reason: str) -> None:
        """Understood, not enforced."""
        self.notes.unenforced.append(Finding(self.path, reason))

    def fields(self, known: Iterable[str]) -> dict[str, "Node"]:
        """The fields that are present and not null; others than ``known`` are noted."""
        found = self.entries()
        known = frozenset(known)
        for name in [n for n in found if n not in known]:
            reason = "unknown field: an API server drops or refuses it"
            self.notes.unknown.append(Finding(found.pop(name).path, reason))
        return {name: node for name, node in found.items() if node.value is not None}

    def entries(self) -> dict[str, "Node"]:
        """All entries of a map, whatever their names."""
        if not isinstance(self.value, dict):
            self._not("a map")
            return {}
        return {
            str(name): Node(value, f"{self.path}.{name}" if self.path else str(name), self.notes)
            for name, value in self.value.items()
        }

    def items(self) -> list["Node"]:
        """The items of a list."""
        if not isinstance(self.value, list):
            self._not("a list")
            return []
        return [Node(v, f"{self.path}[{i}]", self.notes) for i, v in enumerate(self.value)]

    def text(self) -> str:
        """Empty when it is none."""
        if isinstance(self.value, str):
            return self.value
        self._not("a text", "; write it in quotes" if isinstance(self.value, int | float) else "")
        return ""

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.items())

    def number(self, low: int, high: int) -> int | None:
        """``None`` when it is none from ``low`` to ``high``."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self._not("a whole number")
            return None
        if not low <= self.value <= high:
            self.error(f"{str(self.value)[:20]} is not from {low} to {high}")
            return None
        return self.value

    def flag(self) -> bool | None:
        """``None`` when it is none."""
        if isinstance(self.value, bool):
            return self.value
        self._not("true or false")
        return None

    def one_of(self, values: Iterable[str]) -> str:
        """One of the texts, else empty."""
        text = self.text()
        if isinstance(self.value, str) and text not in values:
            self.error(f"{text[:80]!r} is not one of {', '.join(values)}")
            return ""
        return text

    def _not(self, wanted: str, remedy: str = "") -> None:
        self.error(f"must be {wanted}, is {type_name(self.value)}{remedy}")
