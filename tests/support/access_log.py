"""Records as a proxy sends them, and a proxy that sends them."""

import json
import socket
from pathlib import Path
from typing import Any

CLIENT, SERVER, RESOLVER = "10.1.0.10", "10.1.0.20", "10.1.0.53"
SENT = "2026-03-01T10:00:00.000000001Z"


def record(source: str = CLIENT, destination: str = SERVER, **members: Any) -> dict[str, Any]:
    """A request on its way out; ``members`` replace and add."""
    return {
        "Type": "Request",
        "Timestamp": SENT,
        "ObservationPoint": "Egress",
        "Verdict": "Forwarded",
        "TransportProtocol": 6,
        "SourceEndpoint": {"IPv4": source, "Port": 41004},
        "DestinationEndpoint": {"IPv4": destination, "Port": 80},
        **members,
    }


def answer(source: str = SERVER, destination: str = CLIENT, **members: Any) -> dict[str, Any]:
    """An answer: from the server to the client."""
    ends = {
        "SourceEndpoint": {"IPv4": source, "Port": 80},
        "DestinationEndpoint": {"IPv4": destination, "Port": 41004},
    }
    return record(**{**ends, "Type": "Response", **members})


def dns_answer(name: str, *ips: str, asker: str = CLIENT, **members: Any) -> dict[str, Any]:
    """That the name has these addresses, told to ``asker``; ``members`` of ``DNS``."""
    found = {"Query": name, "IPs": list(ips), "TTL": 30, "QTypes": [1], "AnswerTypes": [1]}
    return answer(
        RESOLVER,
        asker,
        TransportProtocol=17,
        DNS={**found, "ObservationSource": "proxy", **members},
    )


def message(made: dict[str, Any]) -> bytes:
    """The bytes of a record."""
    return json.dumps(made).encode()


class Proxy:
    """Connected to a node's Hubble."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(30)
        self._socket.connect(str(path))

    def tell(self, made: dict[str, Any] | bytes) -> None:
        self._socket.send(made if isinstance(made, bytes) else message(made))

    def is_turned_away(self) -> bool:
        """Did the other side close?"""
        return self._socket.recv(1) == b""

    def close(self) -> None:
        self._socket.close()
