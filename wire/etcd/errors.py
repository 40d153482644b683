"""A key or value that cannot be used, and who is to blame. Pure."""


class RemoteWireError(ValueError):
    """Somebody else's record does not decode or breaks a rule; ``where`` is its key."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class LocalWireError(ValueError):
    """We tried to write something that no reader could use."""
