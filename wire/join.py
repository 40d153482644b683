"""What two clusters say to each other when one joins with a token of the other. Pure.

The token is ``isthmus-join-1.`` and base64url of a check sum and JSON. Messages are JSON on HTTPS;
docs/join.md describes them. Every text of a peer is checked here before anybody uses it: length,
characters, counts.
"""

import base64
import binascii
import re
from hashlib import sha256
from ipaddress import ip_address

import msgspec

from model.peer import Peer, parse_peer

PREFIX = "isthmus-join-1."
CHECK_BYTES = 4
SECRET_BYTES = 32
BODY_LIMIT = 256 * 1024  # bytes of a message: some thousand pod CIDRs and four certificates
ENDPOINT_LIMIT = 16
CIDR_LIMIT = 8192
PEM_LIMIT = 16 * 1024
# The first is readable without a secret; the others carry it.
AUTHORITY_PATH, HELLO_PATH, JOIN_PATH = "/v1/authority", "/v1/hello", "/v1/join"

_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9][-A-Za-z0-9]*)*"
)
_ID = re.compile(r"[a-z0-9]{10}")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``grant`` prints. Its representation hides the secret."""

    id: str
    cluster: str  # of the granting side
    number: int
    endpoints: list[str]  # HOST:PORT of its join service
    fingerprint: str  # SHA-256 of its authority's certificate (DER), hex
    secret: str  # base64url of SECRET_BYTES random bytes

    def __repr__(self) -> str:
        return f"Token(id={self.id!r}, cluster={self.cluster!r}, secret=hidden)"


class Introduction(msgspec.Struct, frozen=True):
    """A cluster's facts, and where and how its mesh store is reached."""

    name: str
    id: int
    max_connected: int = 255
    tunnel: str = ""
    pod_cidrs: list[str] = []
    addresses: list[str] = []  # of the mesh store: IPs or DNS names
    port: int = 0
    authority: str = ""  # PEM of what signs the store's certificate
    following: str = ""  # PEM of what is about to take its place, and signs for others already

    def authorities(self) -> bytes:
        """PEM of all that may sign for this cluster."""
        return (self.authority + self.following).encode()

    def peer(self) -> Peer:
        """The facts, checked. Raises ``ValueError``."""
        if len(self.pod_cidrs) > CIDR_LIMIT:
            raise ValueError(f"{len(self.pod_cidrs)} pod CIDRs: at most {CIDR_LIMIT} are read")
        if max(len(self.authority), len(self.following)) > PEM_LIMIT:
            raise ValueError(f"the authority has more than {PEM_LIMIT} bytes")
        check_places(self.addresses, self.port)
        return parse_peer(self.name, self.id, self.max_connected, self.tunnel, self.pod_cidrs)


class Hello(msgspec.Struct, frozen=True):
    """The joining side asks who is there; uses nothing up."""

    id: str
    secret: str


class Welcome(msgspec.Struct, frozen=True):
    """The granting side's facts, and what it wants signed."""

    cluster: Introduction
    request: str  # PEM of a certificate signing request


class Join(msgspec.Struct, frozen=True):
    """The joining side's facts, its signature for the other, and what it wants signed."""

    id: str
    secret: str
    cluster: Introduction
    certificate: str  # PEM: the granting side's client certificate for the joining side's store
    request: str


class Joined(msgspec.Struct, frozen=True):
    """The joining side's client certificate for the granting side's store, PEM."""

    certificate: str


class Refusal(msgspec.Struct, frozen=True):
    """Why not; one sentence with the remedy."""

    error: str


def encode_token(token: Token) -> str:
    """What a person copies."""
    body = msgspec.json.encode(token)
    return PREFIX + _encode(sha256(body).digest()[:CHECK_BYTES] + body)


def decode_token(text: str) -> Token:
    """Raises ``ValueError`` with one sentence that does not repeat the token."""
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise ValueError(
            f"this is no join token (they begin with {PREFIX}): copy what "
            "`isthmus clustermesh grant` printed"
        )
    try:
        data = _decode(text.removeprefix(PREFIX))
        check, body = data[:CHECK_BYTES], data[CHECK_BYTES:]
        if sha256(body).digest()[:CHECK_BYTES] != check:
            raise ValueError("check sum")
        token = msgspec.json.decode(body, type=Token)
        if not _ID.fullmatch(token.id) or len(_decode(token.secret)) != SECRET_BYTES:
            raise ValueError("fields")
        if not re.fullmatch(r"[0-9a-f]{64}", token.fingerprint) or not token.endpoints:
            raise ValueError("fields")
        for endpoint in token.endpoints:
            parse_place(endpoint)
    except ValueError as error:  # msgspec's and binascii's errors are ValueErrors, too
        raise ValueError(
            "the join token is damaged: copy the whole of what `isthmus clustermesh grant` printed"
        ) from error
    return token


def secret_digest(secret: str) -> str:
    """What is kept of a secret; it has 256 random bits, so a plain hash cannot be turned back."""
    return sha256(secret.encode()).hexdigest()


def encode_secret(data: bytes) -> str:
    """A secret as it stands in a token."""
    return _encode(data)


def parse_place(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPv6]:PORT``. Raises ``ValueError``."""
    host, separator, number = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not number.isascii() or not number.isdigit():
        raise ValueError(f'"{text[:80]}" is not HOST:PORT')
    check_places([host], int(number))
    return host, int(number)


def format_place(host: str, port: int) -> str:
    """Inverse of ``parse_place``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_places(hosts: list[str], port: int) -> None:
    """Raises ``ValueError`` unless these can stand in a URL and in YAML as they are."""
    if not 1 <= len(hosts) <= ENDPOINT_LIMIT:
        raise ValueError(f"{len(hosts)} addresses of the mesh store: name 1 to {ENDPOINT_LIMIT}")
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not a port: use 1 to 65535")
    for host in hosts:
        if not _is_host(host):
            raise ValueError(f"{host[:80]!r} is neither an IP address nor a DNS name")


def _is_host(host: str) -> bool:
    if _HOST.fullmatch(host):
        return True
    try:
        return "%" not in host and bool(ip_address(host))
    except ValueError:
        return False


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64url: {error}") from error
