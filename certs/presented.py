"""Which certificates a process shows to the stores that it reads. Adapter (reads files)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from certs import check
from model.cluster import ClusterName


class Files(Protocol):
    """Of one connection."""

    @property
    def ca_file(self) -> str:
        """Whom we accept."""
        ...

    @property
    def cert_file(self) -> str:
        """What we show."""
        ...


@dataclass(frozen=True, slots=True)
class Presented:
    """What the next connection will use: files are read at each connection."""

    expires: datetime
    issuer: str
    authorities: tuple[str, ...]  # that we accept

    def shape(self) -> dict[str, Any]:
        """For the API."""
        return {
            "expires": self.expires.isoformat(),
            "issuer": self.issuer,
            "authorities": list(self.authorities),
        }


def presented(configs: Mapping[ClusterName, Files]) -> dict[ClusterName, Presented]:
    """By remote cluster. One whose files cannot be used is left out: its status says why."""
    known: dict[tuple[str, str], Presented | None] = {}  # most share their files
    found = {}
    for name, config in configs.items():
        pair = config.ca_file, config.cert_file
        if pair not in known:
            known[pair] = _read(*pair)
        certificate = known[pair]
        if certificate is not None:
            found[name] = certificate
    return found


def _read(ca_file: str, cert_file: str) -> Presented | None:
    try:
        pem = Path(cert_file).read_bytes()
        authorities = check.authorities(Path(ca_file).read_bytes())
        return Presented(check.expires_at(pem), check.issuer(pem, authorities), tuple(authorities))
    except (OSError, ValueError):
        return None
