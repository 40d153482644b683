"""How to reach an etcd: the YAML that clients of a mesh store are given. Adapter (reads files).

Keys understood: ``endpoints`` (list of URLs), ``trusted-ca-file``, ``cert-file``, ``key-file``, and
the list ``cilium-host-aliases`` of ``{hostname, ips}``, and ``isthmus-cache-ttl`` (after how long
without the cluster its backends are taken back, ``0s``: never); others are left to other readers.
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from model.duration import parse_duration_s

CONFIG_LIMIT_BYTES = 64 * 1024  # a few endpoints and paths; more is a wrong file


class StoreConfigError(ValueError):
    """The text names the file, what is wrong with it, and the remedy."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Endpoints and the files of our certificate."""

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    host_aliases: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    cache_ttl_s: float | None = None  # how old the data may become; 0: any age; None: as set

    @property
    def files(self) -> tuple[str, ...]:
        """The files read at each connection."""
        return tuple(name for name in (self.ca_file, self.cert_file, self.key_file) if name)

    def targets(self) -> tuple["Endpoint", ...]:
        """Every address to try, host aliases applied, in the given order."""
        out: list[Endpoint] = []
        for url in self.endpoints:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 2379
            secure = parts.scheme == "https"
            addresses = self.host_aliases.get(host, (host,))
            out.extend(Endpoint(address, port, secure, host) for address in addresses)
        return tuple(out)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address, and the name its certificate must carry."""

    address: str
    port: int
    secure: bool
    server_name: str

    @property
    def authority(self) -> str:
        """``address:port``, with brackets around IPv6."""
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


class _Alias(msgspec.Struct):
    hostname: str = ""
    ips: list[str] = []


class _File(msgspec.Struct):
    endpoints: list[str] = []
    ca: str = msgspec.field(name="trusted-ca-file", default="")
    cert: str = msgspec.field(name="cert-file", default="")
    key: str = msgspec.field(name="key-file", default="")
    aliases: list[_Alias] = msgspec.field(name="cilium-host-aliases", default_factory=list)
    cache_ttl: str = msgspec.field(name="isthmus-cache-ttl", default="")


def parse_store_config(data: bytes, where: str) -> StoreConfig:
    """Read the YAML. Raises ``StoreConfigError``; ``where`` names the file in it."""
    if len(data) > CONFIG_LIMIT_BYTES:
        raise StoreConfigError(
            f"{where}: larger than {CONFIG_LIMIT_BYTES} bytes; is it a store's configuration?"
        )
    try:
        raw = msgspec.yaml.decode(data, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreConfigError(f"{where}: not a store's configuration: {error}") from error
    if not raw.endpoints:
        raise StoreConfigError(f"{where}: no endpoints: add `endpoints: [https://HOST:PORT]`")
    for url in raw.endpoints:
        parts = urlsplit(url)
        try:
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
        except ValueError:
            good = False
        if not good:
            raise StoreConfigError(f"{where}: endpoint {url!r} is not http(s)://HOST:PORT")
        if parts.scheme == "https" and not raw.ca:
            raise StoreConfigError(f"{where}: endpoint {url!r} needs trusted-ca-file")
    aliases: dict[str, tuple[str, ...]] = {}
    for alias in raw.aliases:
        if not alias.hostname or not alias.ips or alias.hostname in aliases:
            raise StoreConfigError(
                f"{where}: cilium-host-aliases entry {alias.hostname!r} must have a hostname of "
                "its own and at least one IP"
            )
        aliases[alias.hostname] = tuple(alias.ips)
    try:
        cache_ttl_s = parse_duration_s(raw.cache_ttl) if raw.cache_ttl else None
    except ValueError as error:
        raise StoreConfigError(f"{where}: isthmus-cache-ttl: {error}") from error
    return StoreConfig(tuple(raw.endpoints), raw.ca, raw.cert, raw.key, aliases, cache_ttl_s)


def load_store_config(path: Path) -> StoreConfig:
    """Read a file. Raises ``StoreConfigError``."""
    try:
        return parse_store_config(path.read_bytes(), str(path))
    except OSError as error:
        raise StoreConfigError(f"{path}: cannot be read: {error.strerror}") from error
