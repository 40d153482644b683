"""The front end of Hubble's UI as far as its backend sees it: posts, polls, goodbyes."""

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import aiohttp

from wire.hubble import customprotocol_pb2 as cp
from wire.hubble import flow_pb2, ui_pb2

MAP_EVENTS = (
    ui_pb2.EventType.FLOWS,
    ui_pb2.EventType.SERVICE_STATE,
    ui_pb2.EventType.SERVICE_LINK_STATE,
)
# Names of the cards, port, verdict.
Link: TypeAlias = tuple[str, str, int, str]


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
        async with asyncio.timeout(90):
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


@contextlib.contextmanager
def running(environment: Mapping[str, str], *words: str) -> Iterator[str]:
    """``isthmus hubble ui`` in a process of its own; where it is."""
    command = [sys.executable, "-u", "-m", "cli.main", "hubble", "ui", *words]
    process = subprocess.Popen(
        [*command, "--listen-address", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(environment),
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", said)
        assert found, said
        yield found[0]
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def default_request(namespace: str) -> ui_pb2.GetEventsRequest:
    """What the front end asks first for a namespace: both sides, no answers, nothing unknown."""
    request = ui_pb2.GetEventsRequest(event_types=MAP_EVENTS)
    for field_name in ("source_pod", "destination_pod"):
        one = flow_pb2.FlowFilter(reply=[False], **{field_name: [f"{namespace}/"]})
        request.whitelist.add(flow_filter=one)
    for field_name in ("source_label", "destination_label"):
        one = flow_pb2.FlowFilter(**{field_name: ["reserved:unknown"]})
        request.blacklist.add(flow_filter=one)
    return request


async def wait_for_link(base: str, namespace: str, link: Link) -> None:
    """Poll the map of a namespace until two cards of these names are linked so."""
    names: dict[str, str] = {}
    found: set[Link] = set()

    def take(message: cp.Message) -> bool:
        for event in ui_pb2.GetEventsResponse.FromString(message.body.content).events:
            if event.HasField("service_state"):
                names[event.service_state.service.id] = event.service_state.service.name
            if event.HasField("service_link_state"):
                one = event.service_link_state.service_link
                kind = flow_pb2.Verdict.Name(one.verdict)
                found.add((one.source_id, one.destination_id, one.destination_port, kind))
        return link in {(names.get(a, a), names.get(b, b), *rest) for a, b, *rest in found}

    request = default_request(namespace).SerializeToString()
    async with browsing() as session:
        await Stream(session, base, "service-map-stream", request).until(take)
