"""The joining side: redeem another cluster's token. Adapter (HTTPS).

First, without trust, the other's authority is fetched and compared with the fingerprint in the
token. Only then, over a connection that this very authority vouches for, is the secret shown. Our
key and request are kept before they are sent, so that the same request can be made again when an
answer was lost.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

import aiohttp
import msgspec

from certs import signing
from certs.issue import KeyPair
from certs.profiles import REMOTE_SECRET, SERVER_NAME, mesh_profiles
from wire.join import (
    AUTHORITY_PATH,
    BODY_LIMIT,
    HELLO_PATH,
    JOIN_PATH,
    PEM_LIMIT,
    Hello,
    Introduction,
    Join,
    Joined,
    Refusal,
    Token,
    Welcome,
)

CONNECT_S = 5
ANSWER_S = 30

T = TypeVar("T")


class Kept(Protocol):
    """Where the joining side keeps its request until the connection stands."""

    async def load(self) -> Mapping[str, bytes]:
        """What was saved; empty at first."""
        ...

    async def save(self, data: Mapping[str, bytes]) -> None:
        """Keep this, private key included."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The other cluster, and our credentials for its store."""

    cluster: Introduction
    credentials: Mapping[str, bytes] = field(repr=False)  # ca, crt, key


async def redeem(
    token: Token,
    own: Introduction,
    ca: KeyPair,
    kept: Kept,
    check: Callable[[Introduction], Awaitable[Sequence[str]]],
    now: datetime,
) -> Outcome:
    """Exchange certificates. ``check`` says why the two must not be joined; then nothing is sent.

    Raises ``ValueError`` (refused: a sentence with the remedy) and ``OSError`` (not reached: the
    same call may be repeated).
    """
    name = mesh_profiles(own.name)[REMOTE_SECRET].common_name
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        place, authority = await _find(session, token)
        door = _Door(session, place, authority)
        welcome = await door.ask(HELLO_PATH, Hello(token.id, token.secret), Welcome)
        other = welcome.cluster
        if (other.name, other.id) != (token.cluster, token.number):
            raise ValueError(
                f"{place} says that it is cluster {other.name[:40]} (ID {other.id}), and the token "
                f"is of {token.cluster} (ID {token.number}): ask for a new token"
            )
        problems = await check(other)
        if problems:
            raise ValueError("\n       ".join(problems))
        profile = mesh_profiles(own.name)[REMOTE_SECRET]
        signed = signing.sign_request(ca, welcome.request.encode(), profile, now)
        request = await _request(kept, name)
        message = Join(token.id, token.secret, own, signed.decode(), request.certificate.decode())
        joined = await door.ask(JOIN_PATH, message, Joined)
    certificate = joined.certificate.encode()
    trust = signing.check_authorities(authority + other.following.encode(), 2)
    signing.check_signed(certificate, request, trust, name, now)
    return Outcome(other, {"ca": trust, "crt": certificate, "key": request.key})


async def _request(kept: Kept, name: str) -> KeyPair:
    """The request of an earlier attempt, or a new one."""
    found = await kept.load()
    if found.get("request") and found.get("key"):
        return KeyPair(found["request"], found["key"])
    made = signing.make_request(name)
    await kept.save({"request": made.certificate, "key": made.key})
    return made


async def _find(session: aiohttp.ClientSession, token: Token) -> tuple[str, bytes]:
    """The first place of the token that answers with the authority it names."""
    reasons = []
    for place in token.endpoints:
        try:
            # Nothing is trusted here, and nothing is told: the fingerprint decides.
            async with session.get(f"https://{place}{AUTHORITY_PATH}", ssl=False) as answer:
                text = await answer.content.read(PEM_LIMIT)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            reasons.append(f"{place}: {_words(error)}")
            continue
        if status == 429:
            reasons.append(f"{place}: too many requests: wait a few seconds")
            continue
        try:
            found = signing.fingerprint(text)
        except ValueError:
            found = ""
        if found != token.fingerprint:
            raise ValueError(
                f"{place} shows another authority (SHA-256 {found or 'of nothing'}) than the token "
                f"names ({token.fingerprint}): somebody is in between, or the authority was "
                "replaced; nothing was sent. Ask for a new token, and compare the fingerprints"
            )
        return place, signing.check_authorities(text, 1)
    raise ConnectionError(
        f"cluster {token.cluster} cannot be reached to join: {'; '.join(reasons)}: open the port "
        "between the clusters; the port is open only while a token is valid"
    )


class _Door:
    """The other's join service, once its authority is known."""

    def __init__(self, session: aiohttp.ClientSession, place: str, authority: bytes) -> None:
        self._session = session
        self._place = place
        self._tls = ssl.create_default_context(cadata=authority.decode())
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3

    async def ask(self, path: str, message: msgspec.Struct, kind: type[T]) -> T:
        """One request. Raises ``ValueError`` for a refusal, ``OSError`` when nothing came back."""
        try:
            async with self._session.post(
                f"https://{self._place}{path}",
                data=msgspec.json.encode(message),
                ssl=self._tls,
                server_hostname=SERVER_NAME,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as answer:
                body = await _read(answer)
                status = answer.status
        except aiohttp.ClientConnectorCertificateError as error:
            raise ValueError(
                f"{self._place} cannot prove that it is the cluster of the token: "
                f"{error.certificate_error}; nothing was sent"
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(
                f"{self._place}: the connection broke ({_words(error)}): run the "
                "same `join` again; it goes on where it was"
            ) from error
        try:
            if status == 200:
                return msgspec.json.decode(body, type=kind)
            refusal = msgspec.json.decode(body, type=Refusal).error
        except msgspec.MsgspecError:
            refusal = f"an answer that is none of a join service (HTTP {status})"
        text = f"{self._place}: {refusal}"
        raise ConnectionError(text) if status in (408, 429, 503) else ValueError(text)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > BODY_LIMIT:
            raise aiohttp.ClientPayloadError(f"an answer of more than {BODY_LIMIT} bytes")
    return body
