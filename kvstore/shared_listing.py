"""Reads below one prefix of one store, asked for in the same moment: one listing. Adapter.

Sessions with hundreds of clusters whose copies lie in one store begin together and ask the same
questions, each of its own cluster. Nothing is remembered: a listing begins after every question
that it answers, as a read by itself would.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kvstore.port import StoreError, UnavailableError

FROM = 8  # questions; fewer are asked one by one
GATHER_S = 0.003  # answers to the questions before come one after the other


class SharedListing:
    """Whose questions are gathered."""

    __slots__ = ("_asking",)

    def __init__(self) -> None:
        self._asking: list[asyncio.Future[Any]] | None = None  # beside the first one, who reads

    async def ask(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """What one ``read`` for all finds; ``None``: everybody has to ask for themselves.

        Raises ``UnavailableError``.
        """
        if self._asking is not None:
            answer = asyncio.get_running_loop().create_future()
            self._asking.append(answer)
            return await answer
        others = self._asking = []
        found, lost = None, None
        try:
            try:
                await asyncio.sleep(GATHER_S)
            finally:
                self._asking = None  # who comes from here on may have seen something newer
            if len(others) + 1 >= FROM:
                found = await read()
        except UnavailableError as error:
            lost = error
            raise
        except StoreError:  # perhaps they may not read the whole of it
            pass
        finally:
            for answer in (answer for answer in others if not answer.done()):
                if lost is None:
                    answer.set_result(found)
                else:
                    answer.set_exception(lost)
        return found
