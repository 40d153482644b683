"""``isthmus bpf policy``: rows of endpoints' policy maps, as text and JSON. Adapter; needs root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.bpf_options import pins, readable
from datapath import inspect
from datapath.policy_encoding import Traffic
from model.identity import RESERVED_NAMES, ReservedIdentity
from model.policy_map import (
    ANY_IDENTITY,
    FULL_BITS,
    PROTOCOL_BITS,
    UNKNOWN_IDENTITY,
    Direction,
    PolicyEntry,
    PolicyKey,
)

Rows = Mapping[PolicyKey, tuple[PolicyEntry, Traffic]]

HEADER = (
    *("POLICY", "DIRECTION", "LABELS (source:key[=value])", "PORT/PROTO", "PROXY PORT"),
    *("AUTH TYPE", "BYTES", "PACKETS", "PREFIX", "RULE"),
)
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_EMPTY = "Policy stats empty. Perhaps the policy enforcement is disabled?"


def port_text(key: PolicyKey) -> str:
    """``ANY``, ``TCP``, ``80/TCP`` or ``64-127/TCP``."""
    if key.bits == 0:
        return "ANY"
    protocol = _PROTOCOLS.get(key.protocol, str(key.protocol))
    if key.bits <= PROTOCOL_BITS:
        return protocol
    last = key.port + (1 << FULL_BITS - key.bits) - 1
    return f"{key.port}/{protocol}" if last == key.port else f"{key.port}-{last}/{protocol}"


def _verdict(entry: PolicyEntry) -> str:
    if not entry.deny:
        return "Allow"
    return "Deny (Audit)" if entry.audit else "Deny"


def _identity(number: int, numeric: bool) -> str:
    if numeric:
        return str(number)
    if number == ANY_IDENTITY:
        return "ANY"
    if number == UNKNOWN_IDENTITY:
        return "UNKNOWN"
    reserved = number in ReservedIdentity.__members__.values()
    return RESERVED_NAMES[ReservedIdentity(number)] if reserved else str(number)


def _ordered(rows: Rows) -> list[PolicyKey]:
    """Deny first, then by direction and identity."""
    return sorted(rows, key=lambda key: (not rows[key][0].deny, key.direction, *key))


def table(rows: Rows, numeric: bool) -> list[list[str]]:
    """``bpf policy get``."""
    lines = [list(HEADER)]
    if numeric:
        lines[0][2] = "IDENTITY"
    for key in _ordered(rows):
        entry, traffic = rows[key]
        lines.append(
            [
                *(_verdict(entry), key.direction.name.capitalize()),
                *(_identity(key.identity, numeric), port_text(key), "NONE", "disabled"),
                *(str(traffic.bytes), str(traffic.packets), str(key.bits), str(entry.rule)),
            ]
        )
    return lines


def as_objects(rows: Rows) -> list[dict[str, Any]]:
    """``bpf policy get -o json``."""
    return [
        {
            "Key": {
                "Prefixlen": 40 + key.bits,
                "Identity": key.identity,
                "TrafficDirection": int(key.direction is Direction.EGRESS),
                "Nexthdr": key.protocol,
                "DestPort": key.port,
            },
            "Value": {
                "Deny": entry.deny,
                "Audit": entry.audit,
                "Rule": entry.rule,
                "ProxyPort": 0,
                "LPMPrefixLength": key.bits,
                "Packets": traffic.packets,
                "Bytes": traffic.bytes,
            },
        }
        for key in _ordered(rows)
        for entry, traffic in (rows[key],)
    ]


@click.group()
def policy() -> None:
    """What endpoints may send and receive."""


numeric_option = click.option("-n", "--numeric", is_flag=True, help="Identities as numbers.")


@policy.command("get")
@pins
@output.option
@numeric_option
@click.argument("endpoint", type=int, required=False)
@click.option("--all", "every", is_flag=True, help="All endpoints of this node.")
def policy_get(pin_dir: Path, how: str, numeric: bool, endpoint: int | None, every: bool) -> None:
    """Rows of one endpoint, by its number, or of all, with what they matched."""
    if (endpoint is None) is not every:
        raise click.UsageError("name one endpoint by its number, or give --all")
    found = _read(pin_dir)
    if endpoint is not None:
        if endpoint not in found:
            raise click.ClickException(
                f"endpoint {endpoint} has no policy map; those that have: "
                f"{', '.join(map(str, found)) or 'none'}"
            )
        found = {endpoint: found[endpoint]}
    _show(found, how, numeric, titled=every)


@policy.command("list")
@pins
@output.option
@numeric_option
def policy_list(pin_dir: Path, how: str, numeric: bool) -> None:
    """Rows of all endpoints, with what they matched."""
    _show(_read(pin_dir), how, numeric, titled=True)


def _read(pin_dir: Path) -> Mapping[int, Rows]:
    with readable():
        return inspect.policies(pin_dir)


def _show(found: Mapping[int, Rows], how: str, numeric: bool, *, titled: bool) -> None:
    if how == "json":
        objects = {str(number): as_objects(rows) for number, rows in found.items()}
        click.echo(output.as_json(objects if titled else next(iter(objects.values()))))
        return
    for number, rows in found.items():
        if titled:
            click.echo(f"Endpoint ID: {number}")
        click.echo(output.table(table(rows, numeric)) if rows else _EMPTY)
        if titled:
            click.echo()
    if not found:
        click.echo(_EMPTY)
