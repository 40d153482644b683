"""One watch for all who follow parts of one prefix of one store. Adapter.

An agent behind a KVStoreMesh follows hundreds of clusters in one etcd. A stream for every type of
every cluster costs each 35 KB and half a millisecond to begin, and etcd sends every change as a
message of its own, each of which costs more than what it says.

When changes come one by one and fast, nothing is read for a tenth of a second at a time: what has
come meanwhile is read, decrypted and decoded together.

Who has nothing else to do is told by a call in the turn in which a message is read: to wake
hundreds of followers for a change each costs more than what they do with it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias

from kvstore import messages
from kvstore import rpc_pb2 as pb
from kvstore.port import Batch, Event, prefix_end
from kvstore.watch_call import WatchCall

RECENT_EVENTS = 2_000  # for a follower whose listing is older than what has been read since
BEHIND_MESSAGES = 5_000  # a follower that does not keep up lists again
BURST_MESSAGES, BURST_S = 12, 0.1  # from here on changes are awaited together
GATHER_S = 0.11  # so long: what comes last is late by this, and by what taking over takes
PLACES = 4_096  # of which it is remembered whom they concern
AT_ONCE_EVENTS = 256  # of a message, that may be taken in one turn of the loop
FEW_EVENTS = 10  # gathered in this time: from here on down each comes by itself

REFUSED = -1  # the number of a watch that cannot be

Open: TypeAlias = Callable[[], WatchCall]
Told: TypeAlias = tuple[Any, Batch]  # a reply, and those of its events that concern
# Of which store (its cluster ID), and what concerns: whether it was taken at once.
Take: TypeAlias = Callable[[int, Batch], bool]


class BehindError(Exception):
    """The follower did not take what was told; it has to list again."""


class Follower:
    """One reader's part."""

    __slots__ = ("_take", "ended", "idle", "revision", "told")

    def __init__(self, revision: int, take: Take | None = None) -> None:
        self.revision = revision  # nothing before it
        self.idle = False  # waits, and has seen to everything it was told
        self._take = take
        self.told: deque[Told] | None = None  # made when it is needed: an empty one has 600 bytes
        self.ended: BaseException | None = None  # after what has been told

    def take(self, store: int, batch: Batch) -> bool:
        """One more message, if it may be taken now; ``store``: the cluster ID it came with."""
        if self._take is None or not self.idle or self.told or self.ended is not None:
            return False
        try:
            return self._take(store, batch)
        except Exception as error:  # this follower's own: the others go on
            self.ended = error
            return False

    def give(self, told: Told) -> None:
        """One more message, for later."""
        if self.told is None:
            self.told = deque()
        if len(self.told) >= BEHIND_MESSAGES:
            self.told.clear()
            self.ended = BehindError()
        if self.ended is None:
            self.told.append(told)

    def get(self) -> Told | None:
        """What was given first; ``None``: nothing is left. Raises what ended the watch, then."""
        if self.told:
            first = self.told.popleft()
            if not self.told:
                self.told = None
            return first
        if self.ended is not None:
            raise self.ended
        return None


class Pace:
    """Whether changes come so fast that they are better awaited together."""

    def __init__(self) -> None:
        self._gathered = False
        self._count, self._since_s = 0, 0.0  # of messages; while they are gathered, of events

    def is_fast(self, events: int, now_s: float) -> bool:
        """What was read: so many events. True: the next is read when some have gathered."""
        self._count += events if self._gathered else 1
        if self._gathered and now_s - self._since_s < GATHER_S / 2:
            return True  # what came just behind a gathering, and says nothing of how many gather
        if self._gathered:
            self._gathered = self._count > FEW_EVENTS
        elif self._count < BURST_MESSAGES:
            return False
        else:
            self._gathered = now_s - self._since_s < BURST_S
        self._count, self._since_s = 0, now_s
        return self._gathered


@dataclass(slots=True)
class _Stream:
    call: WatchCall
    watch: int | None = None  # etcd's number of it, once it stands
    pace: Pace = field(default_factory=Pace)


class SharedWatch:
    """The stream and its followers. One of those who wait reads for all; no task is needed."""

    def __init__(self, prefix: str, open_stream: Open) -> None:
        self._prefix, self._open = prefix, open_stream
        self._followers: dict[str, list[Follower]] = {}
        # Whom what lies below a slash concerns, unless it is followed by its whole name.
        self._concerned: dict[str, tuple[Follower, ...]] = {}
        self._waiting: dict[Follower, asyncio.Future[None]] = {}
        self._led = False  # somebody reads
        self._stream: _Stream | None = None
        self._began: Any = None  # the reply that said that the watch stands
        self._at = 0  # the last revision told
        self._floor: int | None = 0  # every event from here on is recent or to come
        self._recent: deque[Event] = deque()

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
        if (began := self._began) is not None:
            follower.give((began, Batch(began.header.revision, ())))
            past = tuple(e for e in self._recent if e.at >= revision and _below(e.key, prefix))
            if past and revision:
                follower.give((began, Batch(began.header.revision, past)))
        self._followers.setdefault(prefix, []).append(follower)
        self._concerned.clear()
        return follower

    def leave(self, prefix: str, follower: Follower) -> None:
        """The end of following; the last one ends the stream."""
        there = self._followers.get(prefix, [])
        if follower in there:
            there.remove(follower)
        if not there:
            self._followers.pop(prefix, None)
        self._concerned.clear()
        if not self._followers:
            self._close()

    async def next(self, follower: Follower) -> Told:
        """What concerns a follower next. Raises what ended the watch."""
        while (told := follower.get()) is None:
            follower.idle = True
            try:
                if self._led:
                    self._waiting[follower] = asyncio.get_running_loop().create_future()
                    await self._waiting[follower]
                else:
                    await self._lead(follower)
            except asyncio.CancelledError:
                self._pass_on()  # it may have been chosen to read
                raise
            finally:
                follower.idle = False
                self._waiting.pop(follower, None)
        return told

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
            self._concerned.clear()
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
        """One message, or all that have gathered."""
        if self._stream is None:
            stream = self._stream = _Stream(self._open())
            await stream.call.write(self._request(0 if self._floor is None else self._at + 1))
        stream = self._stream
        for reply in await stream.call.read():
            if reply.canceled and reply.watch_id in (REFUSED, stream.watch):
                self._tell_all(reply)
            elif reply.created:
                stream.watch = reply.watch_id
                if self._began is None:
                    self._stands(reply)
            elif reply.watch_id == stream.watch and reply.events:
                new = self._take(reply)
                if stream.pace.is_fast(new, asyncio.get_running_loop().time()):
                    stream.call.rest(GATHER_S)

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
            self._give(follower, (reply, Batch(reply.header.revision, ())))

    def _give(self, follower: Follower, told: Told) -> None:
        follower.give(told)
        self._wake(follower)

    def _take(self, reply: Any) -> int:
        """Tell each its part; how many events were new."""
        parts: dict[Follower, list[Event]] = {}
        at, recent = self._at, self._recent
        new = [event for raw in reply.events if (event := messages.event(raw)).at > at]
        for event in new:
            revision = event.at
            for follower in self._whom(event.key):
                if revision >= follower.revision:
                    parts.setdefault(follower, []).append(event)
        if new:
            self._at = new[-1].at
        recent.extend(new)
        while len(recent) > RECENT_EVENTS:
            self._floor = recent.popleft().at + 1
        few, began, taken = len(new) <= AT_ONCE_EVENTS, perf_counter(), False
        header = reply.header
        upto, store = header.revision, header.cluster_id
        for follower, events in parts.items():
            batch = Batch(upto, tuple(events))
            if few and follower.take(store, batch):
                taken = True
            else:
                self._give(follower, (reply, batch))
        if taken:
            messages.observe(new, began)
        return len(new)

    def _whom(self, key: str) -> Sequence[Follower]:
        """Who follows a key, or a place above it."""
        place = key[: key.rfind("/") + 1]
        found = self._concerned.get(place)
        if found is None:
            if len(self._concerned) >= PLACES:
                self._concerned.clear()
            above = (self._followers.get(head, ()) for head in _heads(place))
            found = self._concerned[place] = tuple(f for some in above for f in some)
        exactly = self._followers.get(key)
        return found if exactly is None or key == place else (*exactly, *found)


def _heads(key: str) -> list[str]:
    """The key, and every prefix of it that ends in a slash."""
    heads, cut = [key], len(key) - 1
    while (cut := key.rfind("/", 0, cut)) > 0:
        heads.append(key[: cut + 1])
    return heads


def _below(key: str, head: str) -> bool:
    return key == head or (head.endswith("/") and key.startswith(head))
