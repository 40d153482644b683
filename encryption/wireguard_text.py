"""The configuration protocol of userspace WireGuard: lines of ``key=value``. Pure.

As wireguard.com/xplatform describes it: ``get=1`` and ``set=1``, keys in lower-case hexadecimal, an
answer that ends with ``errno=N`` and an empty line.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence

from encryption.device import DeviceState, PeerChange, PeerState
from encryption.peers import PublicKey
from model.address import Address, Prefix, parse_address, parse_prefix


class ProtocolError(ValueError):
    """An answer that cannot be understood."""


def hexadecimal(key: PublicKey) -> str:
    """A key as the protocol writes it."""
    return base64.b64decode(key).hex()


def _public(text: str) -> PublicKey:
    return PublicKey(base64.b64encode(bytes.fromhex(text)).decode())


def render(changes: Iterable[PeerChange]) -> str:
    """A ``set`` of peers."""
    return "set=1\n" + "".join(f"{line}\n" for c in changes for line in _lines(c)) + "\n"


def _lines(change: PeerChange) -> Iterator[str]:
    yield f"public_key={hexadecimal(change.key)}"
    if change.remove:
        yield "remove=true"
        return
    if change.endpoint is not None:
        yield f"endpoint={_endpoint(change.endpoint, change.port)}"
    if change.keepalive_s is not None:
        yield f"persistent_keepalive_interval={change.keepalive_s}"
    for prefix in change.add:
        yield f"allowed_ip={prefix}"


def _endpoint(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def answer(text: str) -> tuple[Sequence[tuple[str, str]], int]:
    """The lines of an answer and its errno. Raises ``ProtocolError``."""
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line:
            key, separator, value = line.partition("=")
            if not separator:
                raise ProtocolError(f"line {line[:40]!r} is not key=value")
            pairs.append((key, value))
    if not pairs or pairs[-1][0] != "errno":
        raise ProtocolError("the answer does not end with errno")
    try:
        return pairs[:-1], abs(int(pairs[-1][1]))
    except ValueError:
        raise ProtocolError(f"errno is {pairs[-1][1]!r}") from None


class _Building:
    """A peer whose lines are being read."""

    def __init__(self, key: PublicKey) -> None:
        self.key = key
        self.endpoint: Address | None = None
        self.port = 0
        self.allowed: list[Prefix] = []
        self.seconds = self.nanoseconds = self.received = self.sent = 0

    def take(self, key: str, value: str) -> None:
        if key == "endpoint":
            host, _, port = value.rpartition(":")
            self.endpoint, self.port = parse_address(host.strip("[]")), int(port)
        elif key == "allowed_ip":
            self.allowed.append(parse_prefix(value))
        elif key == "last_handshake_time_sec":
            self.seconds = int(value)
        elif key == "last_handshake_time_nsec":
            self.nanoseconds = int(value)
        elif key == "rx_bytes":
            self.received = int(value)
        elif key == "tx_bytes":
            self.sent = int(value)

    def state(self) -> PeerState:
        handshake_s = self.seconds + self.nanoseconds / 1e9
        return PeerState(
            self.endpoint,
            self.port,
            frozenset(self.allowed),
            handshake_s,
            self.received,
            self.sent,
        )


def parse_state(pairs: Iterable[tuple[str, str]], own: PublicKey | None) -> DeviceState:
    """What a device said to ``get``; ``own``: the public half of the key it has told.

    The private key among the lines is passed over. Raises ``ProtocolError``.
    """
    port = mark = 0
    peers: list[_Building] = []
    try:
        for key, value in pairs:
            if key == "public_key":
                peers.append(_Building(_public(value)))
            elif key == "listen_port":
                port = int(value)
            elif key == "fwmark":
                mark = int(value)
            elif peers:
                peers[-1].take(key, value)
    except ValueError as error:
        raise ProtocolError(f"a value cannot be read: {error}") from None
    return DeviceState(own, port, mark, {p.key: p.state() for p in peers})
