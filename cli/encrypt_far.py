"""Nodes that were not asked, as those see them that were. Pure: agents' answers in, rows out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cli import encrypt_text

Object = Mapping[str, Any]

HEADER = (
    *("Node", "Is sent", "Key", "Key known", "Rotation", "Shaken hands", "Last handshake"),
    *("From it", "To it"),
)
ONLY_THEY = (
    "What only they can tell (their devices, the age of their keys, for whom they wait, their "
    "problems): isthmus encrypt status --also CONTEXT"
)


@dataclass(slots=True)
class Far:
    """One node that was not asked, put together from everybody's view of it."""

    name: str
    announced: Object
    seers: int = 0  # who told of it
    kinds: set[str] = field(default_factory=set)  # with what they send to it
    shaken: int = 0  # how many of them have shaken hands with it
    handshake: str = ""  # the latest
    known_s: int | None = None  # the longest
    received_bytes: int = 0
    sent_bytes: int = 0

    def add(self, status: Object) -> None:
        """One node's view."""
        self.seers += 1
        nodes = status.get("migration", {}).get("nodes", {})
        self.kinds.add(nodes.get(self.name, {}).get("sends", "?"))
        moments = [""]
        for peer in _peers(status, self.name):
            moments.append(peer["last-handshake-time"] or "")
            self.received_bytes += peer["transfer-rx"]
            self.sent_bytes += peer["transfer-tx"]
            if (known_s := peer.get("key-known-seconds")) is not None:
                self.known_s = max(self.known_s or 0, known_s)
        self.shaken += any(moments)
        self.handshake = max(self.handshake, *moments)

    def shape(self) -> dict[str, Any]:
        """For programs."""
        found = {
            "announced": self.announced,
            "sent-with": sorted(self.kinds),
            "seen-by": self.seers,
            "shaken-hands": self.shaken,
            "last-handshake-time": self.handshake or None,
            "transfer-rx": self.received_bytes,
            "transfer-tx": self.sent_bytes,
        }
        return found | ({"key-known-seconds": self.known_s} if self.known_s is not None else {})

    def row(self, now: datetime | None = None) -> tuple[str, ...]:
        """As of ``HEADER``."""
        kinds = ", ".join("clear text" if k == "off" else k for k in sorted(self.kinds))
        said, wireguard = self.announced, bool(self.announced.get("wireguard-key"))
        keys = [said["wireguard-key"]] if wireguard else []
        keys += [f"IPsec {said['ipsec-key']}"] if said.get("ipsec-key") else []
        known = encrypt_text.span(self.known_s) if self.known_s is not None else ""
        row = (self.name, kinds, ", ".join(keys) or "none", known)
        if not wireguard:
            return row
        rotation = said.get("rotation") or "none known"
        return (
            *row,
            "none" if rotation.endswith("steady") else f"number {rotation}",
            f"with {self.shaken} of {self.seers}",
            encrypt_text.ago(self.handshake, now),
            str(self.received_bytes),
            str(self.sent_bytes),
        )


def seen(answers: Mapping[str, Object]) -> list[Far]:
    """Nodes of the mesh of which others told and which did not answer themselves, by name."""
    told = {status.get("node") for status in answers.values()}
    found: dict[str, Far] = {}
    for status in answers.values():
        for name, announced in status.get("announced", {}).items():
            if name not in told:
                found.setdefault(name, Far(name, announced)).add(status)
    return [far for _, far in sorted(found.items())]


def _peers(status: Object, name: str) -> Iterator[Object]:
    for interface in status.get("wireguard", {}).get("interfaces", ()):
        yield from (peer for peer in interface["peers"] if peer["node"] == name)
