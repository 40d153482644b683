"""One watch for all who follow parts of one prefix of one store. Adapter.

An agent behind a KVStoreMesh follows hundreds of clusters in one etcd. A stream for every type of
every cluster costs each 35 KB and half a millisecond to begin, and etcd sends every change as a
message of its own, each of which costs more than what it says.

When changes come one by one and fast, the watch is begun again a little in the past: etcd takes it
for a late reader and sends all that has gathered, ten times a second, in one message.

Who has nothing else to do is told by a call in the turn in which a message is read: to wake
hundreds of followers for a change each costs more than what they do with it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias

from kvstore import messages
from kvstore import rpc_pb2 as pb
from kvstore.port import prefix_end
from kvstore.watch_call import WatchCall

RECENT_EVENTS = 2_000  # for a follower whose listing is older than what has been read since
BEHIND_MESSAGES = 5_000  # a follower that does not keep up lists again
BURST_MESSAGES, BURST_S = 12, 0.1  # from here on changes are awaited together
AT_ONCE_EVENTS = 256  # of a message, that may be taken in one turn of the loop
FEW_EVENTS = 8  # gathered in a tenth of a second: from here on down each comes by itself

NONE, REFUSED = -2, -1  # no number of a watch; that of a watch that cannot be

Open: TypeAlias = Callable[[], WatchCall]
Told: TypeAlias = tuple[Any, Sequence[Any]]  # a reply, and those of its events that concern
Take: TypeAlias = Callable[[Told], bool]  # whether it was taken at once


class BehindError(Exception):
    """The follower did not take what was told; it has to list again."""


class Follower:
    """One reader's part."""

    def __init__(self, revision: int, take: Take | None = None) -> None:
        self.revision = revision  # nothing before it
        self.idle = False  # waits, and has seen to everything it was told
        self._take = take
        self.told: deque[Told] = deque()
        self.ended: BaseException | None = None  # after what has been told

    def take(self, told: Told) -> bool:
        """One more message, if it may be taken now."""
        if self._take is None or not self.idle or self.told or self.ended is not None:
            return False
        try:
            return self._take(told)
        except Exception as error:  # this follower's own: the others go on
            self.ended = error
            return False

    def give(self, told: Told) -> None:
        """One more message, for later."""
        if len(self.told) >= BEHIND_MESSAGES:
            self.told.clear()
            self.ended = BehindError()
        if self.ended is None:
            self.told.append(told)


class Pace:
    """Whether changes come so fast that they are better awaited together."""

    def __init__(self) -> None:
        self._gathered = False
        self._messages, self._since_s = 0, 0.0

    def begun_again(self) -> None:
        """The next message is what has gathered."""
        self._gathered = True

    def is_fast(self, events: int, now_s: float) -> bool:
        """One more message, with so many events."""
        if self._gathered:
            self._gathered = False
            self._messages, self._since_s = 0, now_s
            return events > FEW_EVENTS
        self._messages += 1
        if self._messages < BURST_MESSAGES:
            return False
        fast = now_s - self._since_s < BURST_S
        self._messages, self._since_s = 0, now_s
        return fast


@dataclass(slots=True)
class _Stream:
    call: WatchCall
    current: int = NONE  # etcd's number of the watch that counts
    beginning: bool = True  # one is about to be that
    again: bool = False  # it is not the first
    pace: Pace = field(default_factory=Pace)


class SharedWatch:
    """The stream and its followers. One of those who wait reads for all; no task is needed."""

    def __init__(self, prefix: str, open_stream: Open) -> None:
        self._prefix, self._open = prefix, open_stream
        self._followers: dict[bytes, list[Follower]] = {}
        self._waiting: dict[Follower, asyncio.Future[None]] = {}
        self._led = False  # somebody reads
        self._stream: _Stream | None = None
        self._began: Any = None  # the reply that said that the watch stands
        self._at = 0  # the last revision told
        self._floor: int | None = 0  # every event from here on is recent or to come
        self._recent: deque[Any] = deque()

    def follow(self, prefix: str, revision: int, take: Take | None = None) -> Follower | None:
        """Follow a key, or what is below a prefix that ends in a slash, from a revision on.

        What ``take`` takes does not come out of ``next``. ``None``: that is too long ago, and the
        caller has to read for itself.
        """
        if not self._followers:
            self._at, self._floor = max(0, revision - 1), revision or None
            self._recent.clear()
        elif revision and (self._floor is None or revision < self._floor):
            return None
        follower = Follower(revision, take)
        head = prefix.encode()
        if self._began is not None:
            follower.give((self._began, ()))
            past = [e for e in self._recent if e.kv.mod_revision >= revision and _below(e, head)]
            if past and revision:
                follower.give((self._began, past))
        self._followers.setdefault(head, []).append(follower)
        return follower

    def leave(self, prefix: str, follower: Follower) -> None:
        """The end of following; the last one ends the stream."""
        head = prefix.encode()
        there = self._followers.get(head, [])
        if follower in there:
            there.remove(follower)
        if not there:
            self._followers.pop(head, None)
        if not self._followers:
            self._close()

    async def next(self, follower: Follower) -> Told:
        """What concerns a follower next. Raises what ended the watch."""
        while not follower.told:
            if follower.ended is not None:
                raise follower.ended
            follower.idle = True
            try:
                await (self._wait(follower) if self._led else self._lead(follower))
            finally:
                follower.idle = False
        return follower.told.popleft()

    async def _wait(self, follower: Follower) -> None:
        self._waiting[follower] = asyncio.get_running_loop().create_future()
        try:
            await self._waiting[follower]
        except asyncio.CancelledError:
            self._pass_on()  # it may have been chosen to read
            raise
        finally:
            self._waiting.pop(follower, None)

    async def _lead(self, follower: Follower) -> None:
        """Read for all until there is something for this one."""
        self._led = True
        try:
            while not follower.told and follower.ended is None:
                await self._read()
        except asyncio.CancelledError:
            self._close(forget=False)  # a read that is broken off breaks the stream
            raise
        except Exception as error:  # whatever it is, each follower raises it as its own
            everybody, self._followers = self._followers, {}
            self._close()
            for one in (f for part in everybody.values() for f in part):
                one.ended = one.ended or error
                self._wake(one)
        finally:
            self._led = False
            self._pass_on()

    def _pass_on(self) -> None:
        """Let another one read."""
        if not self._led and (other := next(iter(self._waiting), None)) is not None:
            self._wake(other)

    def _wake(self, follower: Follower) -> None:
        future = self._waiting.pop(follower, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _close(self, forget: bool = True) -> None:
        if self._stream is not None:
            self._stream.call.cancel()
            self._stream = None
        if forget:
            self._began = None

    async def _read(self) -> None:
        """One message."""
        if self._stream is None:
            stream = self._stream = _Stream(self._open())
            await stream.call.write(self._request(0 if self._floor is None else self._at + 1))
        stream = self._stream
        reply = await stream.call.read()
        if reply.canceled and reply.watch_id in (REFUSED, stream.current):
            self._tell_all(reply)
        elif reply.created:
            stream.beginning, stream.current = False, reply.watch_id
            if stream.again:
                stream.pace.begun_again()
            elif self._began is None:
                self._stands(reply)
        elif reply.watch_id == stream.current and reply.events:
            new = self._take(reply)
            now_s = asyncio.get_running_loop().time()
            if not stream.beginning and stream.pace.is_fast(new, now_s):
                # What the one that ends would still tell is told again by the one that begins.
                ended = pb.WatchCancelRequest(watch_id=stream.current)
                stream.beginning, stream.again, stream.current = True, True, NONE
                end = pb.WatchRequest(cancel_request=ended)
                await stream.call.write(self._request(self._at), end)

    def _request(self, revision: int) -> Any:
        key, end = self._prefix.encode(), prefix_end(self._prefix)
        create = pb.WatchCreateRequest(key=key, range_end=end, start_revision=revision)
        return pb.WatchRequest(create_request=create)

    def _stands(self, reply: Any) -> None:
        self._began = reply
        if self._floor is None:
            self._at, self._floor = reply.header.revision, reply.header.revision + 1
        self._tell_all(reply)

    def _tell_all(self, reply: Any) -> None:
        for follower in (f for part in self._followers.values() for f in part):
            self._give(follower, (reply, ()))

    def _give(self, follower: Follower, told: Told) -> None:
        follower.give(told)
        self._wake(follower)

    def _take(self, reply: Any) -> int:
        """Tell each its part; how many events were new."""
        parts: dict[Follower, list[Any]] = {}
        heads = self._followers
        count = 0
        for event in reply.events:
            revision = event.kv.mod_revision
            if revision <= self._at:
                continue
            count += 1
            for head in _heads(event.kv.key):
                for follower in heads.get(head, ()):
                    if revision >= follower.revision:
                        parts.setdefault(follower, []).append(event)
            self._recent.append(event)
        self._at = max(self._at, reply.events[-1].kv.mod_revision)
        while len(self._recent) > RECENT_EVENTS:
            self._floor = self._recent.popleft().kv.mod_revision + 1
        few, began, taken = len(reply.events) <= AT_ONCE_EVENTS, perf_counter(), False
        for follower, events in parts.items():
            if few and follower.take((reply, events)):
                taken = True
            else:
                self._give(follower, (reply, events))
        if taken:
            messages.observe(reply.events, began)
        return count


@contextlib.contextmanager
def following(shared: SharedWatch, prefix: str, follower: Follower) -> Iterator[Follower]:
    """Leave in the end."""
    try:
        yield follower
    finally:
        shared.leave(prefix, follower)


def _heads(key: bytes) -> list[bytes]:
    """The key, and every prefix of it that ends in a slash."""
    heads, cut = [key], len(key) - 1
    while (cut := key.rfind(b"/", 0, cut)) > 0:
        heads.append(key[: cut + 1])
    return heads


def _below(event: Any, head: bytes) -> bool:
    key: bytes = event.kv.key
    return key == head or (head.endswith(b"/") and key.startswith(head))
