"""What a write request asks beside its body. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Of a create or a change."""

    dry_run: bool = False
    strict: bool = False  # fieldValidation=Strict


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete; ``grace_s`` ``None`` means the object's own."""

    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    version: str = ""
    dry_run: bool = False


PLAIN = Options()
