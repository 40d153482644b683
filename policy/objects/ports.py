"""Ports of rules: numbers as Go reads them, names, ranges, protocols. Pure."""

import re

from policy.objects.notes import Node
from policy.rules import PortRange

TCP, UDP, SCTP = 6, 17, 132
PROTOCOLS = {"TCP": (TCP,), "UDP": (UDP,), "SCTP": (SCTP,), "ANY": (TCP, UDP, SCTP)}
MAX_PORTS = 40
MAX_PORT = 65535

_DIGITS = re.compile(r"[0-9]+(_[0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LETTER = re.compile(r"[a-z]")
_MAX_NAME = 15


def is_name(text: str) -> bool:
    """A service name of IANA: letters, digits, single hyphens within, one letter at least."""
    low = text.lower()
    return (
        len(text) <= _MAX_NAME
        and _NAME.fullmatch(low) is not None
        and _LETTER.search(low) is not None
    )


def number(text: str) -> int | None:
    """With a leading zero octal, with ``_`` between digits; ``None`` if it is no port."""
    if not _DIGITS.fullmatch(text) or len(text) > 40:
        return None
    digits = text.replace("_", "")
    try:
        value = int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
    except ValueError:
        return None
    return value if value <= MAX_PORT else None


def read(node: Node) -> tuple[PortRange, ...]:
    """``ports`` of one item of ``toPorts``."""
    items = node.items()
    if len(items) > MAX_PORTS:
        node.error(f"{len(items)} ports: at most {MAX_PORTS}; use several items in toPorts")
    return tuple(r for item in items for r in _port(item))


def _port(node: Node) -> tuple[PortRange, ...]:
    found = node.fields(("port", "endPort", "protocol"))
    protocols = _protocols(found.get("protocol"))
    end = found["endPort"].number(0, MAX_PORT) if "endPort" in found else None
    if "port" not in found:
        node.error("port is missing; all ports of a protocol are port '0'")
        return ()
    text = found["port"].text()
    return port(found["port"], text, end, protocols) if isinstance(found["port"].value, str) else ()


def _protocols(node: Node | None) -> tuple[int, ...]:
    text = node.text() if node else "ANY"
    known = PROTOCOLS.get(text.upper() or "ANY")
    if node and known is None:
        node.error(f"{text[:80]!r} is not one of {', '.join(PROTOCOLS)}")
    elif node and text not in PROTOCOLS:
        node.warn(f"an API server refuses {text!r}: write {text.upper() or 'ANY'}")
    return known or ()


def port(
    node: Node, text: str, end: int | None, protocols: tuple[int, ...]
) -> tuple[PortRange, ...]:
    """One port, name or range, for each of the protocols."""
    if is_name(text):
        if text[0] == "0":
            node.warn(f"{text!r} is the name of a port, not a number")
        return tuple(PortRange(p, 0, end or 0, text.lower()) for p in protocols)
    first = number(text)
    if first is None:
        node.error(
            f"{text[:80]!r} is no port: use a number from 0 to {MAX_PORT} "
            "(a leading zero means octal) or a name of at most 15 letters, digits and '-'"
        )
        return ()
    if len(text) > 1 and text[0] == "0":
        node.warn(f"{text!r} is octal: port {first}")
    last = first
    if end is not None and end > first:
        last = end
    elif end is not None and end < first:
        node.warn(f"endPort {end} is below the port and is ignored")
    elif first == 0:
        last = MAX_PORT
    return tuple(PortRange(p, first, last) for p in protocols)
