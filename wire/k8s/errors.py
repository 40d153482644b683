"""What is said about an object that cannot be used as it is. Pure."""


class ObjectError(ValueError):
    """An object's content is not usable: names the object, what is wrong and the remedy."""

    def __init__(self, kind: str, namespace: str, name: str, problem: str) -> None:
        where = f"{namespace}/{name}" if namespace else name
        super().__init__(f"{kind} {where}: {problem}")
