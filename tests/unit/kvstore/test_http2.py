"""One call over HTTP/2: what a server may do, and what it may not. The real etcd is in
tests/conformance/test_shared_watch.py."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hpack import Encoder

from kvstore import http2
from kvstore.http2 import Call, StreamLostError
from kvstore.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    MAX_FRAME_BYTES,
    PADDED,
    PREFACE,
    FrameType,
    ProtocolError,
    Reader,
    Setting,
    encode_headers,
    frame,
    settings,
)

Frame = tuple[int, int, int, bytes]


class Peer:
    """The server's side, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader, self._frames = reader, Reader()
        self._have: list[Frame] = []
        self._greeted = False

    async def frame(self, kind: FrameType) -> Frame:
        """The next frame of a kind; others are passed over."""
        if not self._greeted:
            assert await self._reader.readexactly(len(PREFACE)) == PREFACE
            self._greeted = True
        while True:
            while self._have:
                found = self._have.pop(0)
                if found[0] == kind:
                    return found
            data = await self._reader.read(65_536)
            if not data:
                raise ConnectionError
            self._have += self._frames.frames(data)

    def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def call(script: Script) -> AsyncIterator[Call]:
    """A call to a server that follows a script, then stays silent."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Peer(reader, writer))
            done.set_result(None)
            await reader.read()
        except ConnectionError:
            pass
        except AssertionError as error:
            done.set_exception(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = Call("/a.B/C", "there", False, {"hasleader": "true"})
    try:
        async with asyncio.timeout(20):
            await found.open("127.0.0.1", port, None, "")
            yield found
        if done.done():
            done.result()
    finally:
        found.cancel()
        server.close()
        await server.wait_closed()


def message(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4) + text


def data(payload: bytes, flags: int = 0) -> bytes:
    return frame(FrameType.DATA, flags, 1, payload)


async def test_messages_however_they_are_cut() -> None:
    """Frames in pieces, messages over frames, padding, unknown frames."""
    texts = [bytes([n]) * (n * 37) for n in range(60)]
    rng = random.Random(7)

    async def script(peer: Peer) -> None:
        await peer.frame(FrameType.HEADERS)
        stream, out = b"".join(map(message, texts)), b""
        while stream:
            size = rng.randint(1, 3000)
            part, stream = stream[:size], stream[size:]
            pad = rng.choice([0, 0, 9])
            out += data(bytes((pad,)) + part + bytes(pad), PADDED) if pad else data(part)
            out += rng.choice([b"", bytes((0, 0, 2, 99, 0, 0, 0, 0, 1, 1, 2))])
        while out:
            size = rng.randint(1, 5000)
            peer.say(out[:size])
            out = out[size:]
            await asyncio.sleep(0.001)

    async with call(script) as made:
        got: list[bytes] = []
        while len(got) < len(texts):
            got += await made.read()
        assert got == texts


async def test_what_is_written_keeps_to_the_window() -> None:
    """No more than the server has room for, in frames of the usual size."""
    text = random.Random(1).randbytes(150_000)
    seen: list[int] = []
    agreed = asyncio.Event()

    async def script(peer: Peer) -> None:
        _, _, _, block = await peer.frame(FrameType.HEADERS)
        assert b"/a.B/C" in block
        assert b"hasleader" in block
        peer.say(settings({Setting.INITIAL_WINDOW_SIZE: 20_000}))
        got = b""
        await peer.frame(FrameType.SETTINGS)  # the answer comes after its own wishes
        agreed.set()
        while len(got) < len(text) + 5:
            _, _, _, part = await peer.frame(FrameType.DATA)
            seen.append(len(part))
            got += part
            for stream in (0, 1):
                peer.say(frame(FrameType.WINDOW_UPDATE, 0, stream, len(part).to_bytes(4)))
        assert got == message(text)
        peer.say(data(message(b"thanks")))

    async with call(script) as made:
        await agreed.wait()
        await made.write(text)
        assert await made.read() == [b"thanks"]
    assert max(seen) <= MAX_FRAME_BYTES
    assert sum(seen[:2]) <= 20_000


async def test_who_does_not_read_holds_the_server_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is given for what has been read, and for a message that is not whole yet."""
    monkeypatch.setattr(http2, "WINDOW_BYTES", 100_000)
    given = 0
    read = asyncio.Event()
    large, larger = message(b"y" * 30_000), message(b"z" * 300_000)

    async def script(peer: Peer) -> None:
        nonlocal given
        await peer.frame(FrameType.HEADERS)
        peer.say(data(message(b"x" * 5_000)))
        for at in range(0, len(large), 10_000):
            peer.say(data(large[at : at + 10_000]))
        await read.wait()
        for at in range(0, len(larger), 10_000):
            peer.say(data(larger[at : at + 10_000]))
        while True:
            _, _, stream, size = await peer.frame(FrameType.WINDOW_UPDATE)
            if stream == 1:
                given += int.from_bytes(size)

    async with call(script) as made:
        await asyncio.sleep(0.1)
        assert not given
        got: list[bytes] = []
        while len(got) < 2:
            got += await made.read()
        assert [len(one) for one in got] == [5_000, 30_000]
        read.set()
        while given <= 100_000:  # noqa: ASYNC110 - of what is not whole, too
            await asyncio.sleep(0.01)
        assert [len(one) for one in await made.read()] == [300_000]


async def test_what_comes_while_it_rests_comes_together() -> None:
    """Nothing wakes it before its time, but an end does."""
    said = 0

    async def script(peer: Peer) -> None:
        nonlocal said
        await peer.frame(FrameType.HEADERS)
        for number in range(10):
            peer.say(data(message(bytes((number,)))))
            said += 1
            await asyncio.sleep(0.03)  # the rhythm of changes: shorter than the rest
        await peer.frame(FrameType.DATA)
        peer.say(data(message(b"before")))
        peer.writer.close()

    async with call(script) as made:
        got = await made.read()
        assert len(got) < 3
        clock = asyncio.get_running_loop().time
        began_s = clock()
        made.rest(0.15)
        got += await made.read()
        assert clock() - began_s >= 0.14
        assert len(got) >= said - 1  # one may be on its way
        while len(got) < 10:
            got += await made.read()
        assert got == [bytes((number,)) for number in range(10)]
        made.rest(60.0)
        await made.write(b"end")
        assert await made.read() == [b"before"]
        with pytest.raises(StreamLostError, match="the connection was closed"):
            await made.read()


async def test_pings_are_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.frame(FrameType.HEADERS)
        peer.say(frame(FrameType.PING, 0, 0, b"12345678"))
        assert await peer.frame(FrameType.PING) == (FrameType.PING, ACK, 0, b"12345678")
        peer.say(data(message(b"good")))

    async with call(script) as made:
        assert await made.read() == [b"good"]


async def test_a_silent_server_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers pings is not silent."""
    monkeypatch.setattr(http2, "QUIET_S", 0.2)
    monkeypatch.setattr(http2, "PATIENCE_S", 0.2)
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        await peer.frame(FrameType.HEADERS)
        for _ in range(3):
            _, _, _, what = await peer.frame(FrameType.PING)
            asked += 1
            peer.say(frame(FrameType.PING, ACK, 0, what))

    async with call(script) as made:
        with pytest.raises(StreamLostError, match="does not answer"):
            await made.read()
    assert asked == 3


def _trailers(peer: Peer) -> None:
    encoder = Encoder()
    first = encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
    last = encoder.encode([("grpc-status", "14"), ("grpc-message", "no leader")])
    peer.say(
        frame(FrameType.HEADERS, END_HEADERS, 1, first),
        data(message(b"before")),
        frame(FrameType.HEADERS, END_HEADERS | END_STREAM, 1, last),
    )


ENDS: dict[str, Callable[[Peer], None]] = {
    "the stream ended: no leader": _trailers,
    "broken off, code 2": lambda p: p.say(
        data(message(b"before")), frame(FrameType.RST_STREAM, 0, 1, (2).to_bytes(4))
    ),
    "the server goes away bye": lambda p: p.say(
        data(message(b"before")), frame(FrameType.GOAWAY, 0, 0, bytes(8) + b"bye")
    ),
    "the connection was closed": lambda p: (p.say(data(message(b"before"))), p.writer.close())[1],
    "compressed": lambda p: p.say(data(message(b"before") + b"\1\0\0\0\1x")),
    "more than": lambda p: p.say(data(message(b"before") + b"\0\xff\0\0\1x")),
    "a frame of 20000 bytes": lambda p: p.say(
        data(message(b"before")), (20_000).to_bytes(3) + bytes(6)
    ),
    "more padding than data": lambda p: p.say(data(message(b"before")), data(b"\x09\0", PADDED)),
    "headers without end": lambda p: p.say(
        data(message(b"before")), *[frame(FrameType.CONTINUATION, 0, 1, bytes(9_000))] * 2
    ),
}


@pytest.mark.parametrize("why", ENDS)
async def test_every_end_has_its_reason(why: str) -> None:
    """What came before it is read first; whoever writes then hears it as well."""

    async def script(peer: Peer) -> None:
        await peer.frame(FrameType.HEADERS)
        ENDS[why](peer)

    async with call(script) as made:
        assert await made.read() == [b"before"]
        with pytest.raises(StreamLostError, match=why):
            await made.read()
        with pytest.raises(StreamLostError, match=why):
            await made.write(b"late")


async def test_nobody_there() -> None:
    made = Call("/a.B/C", "there", False, {})
    with pytest.raises(StreamLostError, match=r"refused|failed"):
        await made.open("127.0.0.1", 1, None, "")


def test_a_long_header() -> None:
    """Lengths of 127 and more take several bytes; another implementation reads them."""
    from hpack import Decoder

    headers = {"short": "x", "exact": "y" * 127, "long": "z" * 5_000}
    block = encode_headers(1, headers)[9:]
    assert dict(Decoder(max_header_list_size=1 << 20).decode(block)) == headers


def test_frames_byte_by_byte() -> None:
    whole = data(b"abc") + frame(FrameType.PING, 0, 0, bytes(8))
    reader = Reader()
    got = [found for n in range(len(whole)) for found in reader.frames(whole[n : n + 1])]
    assert got == [(0, 0, 1, b"abc"), (6, 0, 0, bytes(8))]
    with pytest.raises(ProtocolError):
        list(Reader().frames(b"\xff" * 9))
