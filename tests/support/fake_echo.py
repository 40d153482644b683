"""Answers to echo requests without packets; `tests/netns/test_echo.py` holds it beside the real."""

from collections.abc import Collection

from model.address import Address


class FakeEcho:
    """Addresses that answer, and all that were ever asked."""

    def __init__(self, answering: Collection[Address] = ()) -> None:
        self.answering = set(answering)
        self.asked: list[Address] = []

    def close(self) -> None:
        pass

    async def ask(self, addresses: Collection[Address], /) -> dict[Address, float]:
        self.asked += addresses
        return {a: 0.001 for a in addresses if a in self.answering}
