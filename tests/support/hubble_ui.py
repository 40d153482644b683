"""The front end of Hubble's UI as far as its backend sees it: posts, polls, goodbyes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp

from wire.hubble import customprotocol_pb2 as cp


@dataclass
class Stream:
    """One emulated stream, polled as the front end polls it."""

    session: aiohttp.ClientSession
    base: str
    route: str
    request: bytes
    channel: str = ""
    delays_ms: list[int] = field(default_factory=list)

    async def post(self, *, terminate: bool = False) -> cp.Message:
        """One poll; the first carries the request."""
        message = cp.Message(body=cp.Body(content=b"" if self.channel else self.request))
        message.meta.route_name, message.meta.trace_id = self.route, "t"
        message.meta.channel_id = self.channel
        message.meta.is_not_ready = bool(self.channel) and not terminate
        message.meta.is_terminated = terminate
        url = f"{self.base}/api/{self.route}"
        async with self.session.post(url, data=message.SerializeToString()) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "application/octet-stream"
            found = cp.Message.FromString(await answer.read())
        assert found.meta.trace_id == "t"
        assert self.channel in ("", found.meta.channel_id)
        self.channel = found.meta.channel_id
        return found

    async def until(self, is_enough: Callable[[cp.Message], bool]) -> None:
        """Poll, as often as the backend says, until a message is what is waited for."""
        async with asyncio.timeout(30):
            while True:
                found = await self.post()
                self.delays_ms.append(found.meta.poll_delay_ms)
                assert found.meta.poll_delay_ms > 0  # else the front end calls it invalid
                if is_enough(found):
                    return
                await asyncio.sleep(found.meta.poll_delay_ms / 1000)


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[aiohttp.ClientSession]:
    """What a browser has open."""
    async with aiohttp.ClientSession() as session:
        yield session
