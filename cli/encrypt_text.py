"""What ``isthmus encrypt`` prints. Pure: answers of agents in, lines out."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cli import output

Object = Mapping[str, Any]


def node(status: Object, now: datetime | None = None) -> str:
    """One node, with each peer."""
    lines = [f"Encryption: {status.get('mode', 'Disabled')}"]
    accepts = status.get("migration", {}).get("accepts", "off")
    if accepts != "off":
        lines.append(f"Accepts too: {accepts}, while the mesh changes its kind of encryption")
    if "strict-mode" in status:
        lines.append(f"Strict mode: {'Enabled' if status['strict-mode'] else 'Disabled'}")
    lines += [f"Problem: {text}" for text in status.get("problems", ())]
    if "wireguard" in status:
        lines += _wireguard(status, now)
    if "ipsec" in status:
        lines += _ipsec(status["ipsec"])
    return "\n".join(lines)


def _wireguard(status: Object, now: datetime | None) -> list[str]:
    lines: list[str] = []
    for interface in status["wireguard"]["interfaces"]:
        lines += [
            f"Interface: {interface['name']} ({interface['kind']})",
            f"\tPublic key: {interface['public-key']}",
            f"\tPort: {interface['listen-port']}",
            f"\tNumber of peers: {interface['peer-count']}",
        ]
    lines += [
        f"Key age: {span(status['key-age-seconds'])}",
        f"Node encryption: {status['wireguard']['node-encryption']}",
        f"Rotation: {rotation(status)}",
    ]
    lines += [f"\twaits for {text}" for text in status["rotation"]["waiting-for"]]
    rows: list[tuple[str, ...]] = [
        ("Node", "Device", "Endpoint", "Key known", "Last handshake", "Received", "Sent")
    ]
    for interface in status["wireguard"]["interfaces"]:
        rows += [_peer(interface["name"], p, now) for p in interface["peers"]]
    return [*lines, output.table(rows)]


def _ipsec(found: Object) -> list[str]:
    lines = [
        f"Decryption interface(s): {', '.join(found['decrypt-interfaces'])}",
        f"Keys in use: {found['keys-in-use']} ({', '.join(map(str, found['key-ids']))})",
        f"Current key: {found['current-key-id']}",
        f"Max Seq. Number: {found['max-seq-number']}",
        f"Errors: {found['error-count']}",
    ]
    lines += [f"\t{name}: {count}" for name, count in found["xfrm-errors"].items()]
    rows: list[tuple[str, ...]] = [("Node", "Address", "Node ID", "Its key", "We send with")]
    rows += [
        (
            peer["node"],
            peer["address"],
            str(peer["node-id"]),
            str(peer["key-id"] or "none"),
            str(peer["sends-with"] or "no key of IPsec"),
        )
        for peer in found["peers"]
    ]
    return [*lines, output.table(rows)]


def _peer(device: str, peer: Object, now: datetime | None) -> tuple[str, ...]:
    known = peer.get("key-known-seconds")
    return (
        peer["node"] or "?",
        device,
        peer["endpoint"],
        span(known) if known is not None else "",
        ago(peer["last-handshake-time"], now),
        str(peer["transfer-rx"]),
        str(peer["transfer-tx"]),
    )


def rotation(status: Object) -> str:
    """Where the rotation of a node's key is."""
    found = status["rotation"]
    if found["phase"] == "steady":
        return f"none (the last was number {found['number']})" if found["number"] else "none"
    return f"number {found['number']}, {found['phase']}"


def mesh(answers: Mapping[str, Object]) -> list[tuple[str, ...]]:
    """A row for each node."""
    rows: list[tuple[str, ...]] = [
        ("Node", "Mode", "By", "Peers", "Shaken hands", "Key age", "Rotation", "Received", "Sent")
    ]
    for name, status in answers.items():
        mode = str(status.get("mode", "?"))
        accepts = status.get("migration", {}).get("accepts", "off")
        if accepts != "off":
            mode += f", accepts {accepts}"
        if status.get("mode") == "IPsec":
            found = status["ipsec"]
            keys = ", ".join(map(str, found["key-ids"]))
            encrypted = sum(1 for peer in found["peers"] if peer["sends-with"])
            rows.append((name, mode, "kernel", str(encrypted), "", "", f"keys {keys}"))
            continue
        if status.get("mode") != "Wireguard":
            rows.append((name, mode))
            continue
        interfaces = status["wireguard"]["interfaces"]
        main, every = interfaces[0], [p for i in interfaces for p in i["peers"]]
        rows.append(
            (
                name,
                mode,
                main["kind"],
                str(main["peer-count"]),
                str(sum(1 for p in main["peers"] if p["last-handshake-time"])),
                span(status["key-age-seconds"]),
                rotation(status),
                str(sum(p["transfer-rx"] for p in every)),
                str(sum(p["transfer-tx"] for p in every)),
            )
        )
    return rows


def faults(answers: Mapping[str, Object]) -> list[str]:
    """What is wrong: problems that nodes tell, and modes that differ."""
    found = [f"{name}: {text}" for name, s in answers.items() for text in s.get("problems", ())]
    found += [
        f"{name}: the rotation fails: {s['rotation']['error']}"
        for name, s in answers.items()
        if s.get("rotation", {}).get("error")
    ]
    modes: dict[str, list[str]] = {}
    changing = any(s.get("migration", {}).get("accepts", "off") != "off" for s in answers.values())
    for name, s in answers.items() if not changing else ():
        modes.setdefault(str(s.get("mode", "?")), []).append(name)
    if len(modes) > 1:
        text = "; ".join(f"{mode} on {', '.join(names)}" for mode, names in sorted(modes.items()))
        found.append(f"modes differ: {text}: bring all to one with isthmus encrypt migrate")
    return found


def is_steady(answers: Mapping[str, Object]) -> bool:
    """No node is in a rotation."""
    return all(s.get("rotation", {}).get("phase") == "steady" for s in answers.values())


def progress(answers: Mapping[str, Object], failed: Mapping[str, str]) -> str:
    """One line for a person who waits."""
    counts: dict[str, int] = {}
    waits: list[str] = []
    for status in answers.values():
        found = status.get("rotation", {})
        phase = str(found.get("phase", "?"))
        counts[phase] = counts.get(phase, 0) + 1
        waits += found.get("waiting-for", ())
    text = ", ".join(f"{count} {phase}" for phase, count in sorted(counts.items()))
    if failed:
        text += f", {len(failed)} silent"
    return f"nodes: {text}" + (f"; e.g. {waits[0]}" if waits else "")


def span(seconds: int) -> str:
    """How long, for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ago(moment: str | None, now: datetime | None) -> str:
    """How long before ``now``; without it, before the present."""
    if not moment:
        return "never"
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(moment)
    return f"{span(max(0, int(passed.total_seconds())))} ago"
