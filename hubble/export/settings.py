"""What is written where: `hubble-export-*`, and the file of exports. Pure.

The file is YAML: ``flowLogs: [{name, filePath, fieldMask, includeFilters, excludeFilters, end,
fieldAggregate, aggregationInterval, fileMaxSizeMb, fileMaxBackups, fileCompress}]``.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from hubble.fieldmask import parse as parse_mask
from hubble.metrics.options import read_filters
from wire.hubble import flow_pb2 as f

STATIC = "static"  # the name of the export that settings make
STDOUT = "stdout"
INTERVAL_MIN_S = 0.1
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is put aside, and what becomes of it."""

    size_mb: int = 10
    backups: int = 5
    compress: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """One file."""

    name: str
    path: str
    mask: tuple[str, ...] = ()  # none: every field
    include: tuple[f.FlowFilter, ...] = ()  # none: every event
    exclude: tuple[f.FlowFilter, ...] = ()
    end_ns: int | None = None  # nothing is written from then on
    aggregate: tuple[str, ...] = ()  # fields by which flows are counted together
    interval_s: float = 0.0  # of aggregation; 0: every flow is a line
    rotation: Rotation = field(default_factory=Rotation)


def duration(text: str) -> float:
    """Seconds of ``10s``, ``1m30s``, ``0``. ``ValueError``."""
    if text in ("", "0"):
        return 0.0
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise ValueError(f'"{text}" is no duration: write 10s, 5m or 1h')
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def paths(text: str) -> tuple[str, ...]:
    """Fields, separated by blanks or commas. ``ValueError``: one of them is none."""
    found = tuple(text.replace(",", " ").split())
    parse_mask(found)
    return found


def filters(text: str) -> tuple[f.FlowFilter, ...]:
    """FlowFilters as JSON objects one behind the other. ``ValueError``."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text):
        if text[at] in " \t\r\n,":
            at += 1
            continue
        try:
            one, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"no JSON of filters at character {error.pos + 1}: {error.msg}"
            ) from error
        if not isinstance(one, dict):
            raise ValueError(f"a filter is a JSON object, {json.dumps(one)} is none")
        found.append(one)
    return read_filters(found, "filter")


class _Entry(msgspec.Struct, rename="camel"):
    name: str
    file_path: str
    field_mask: list[str] = []
    include_filters: list[dict[str, Any]] = []
    exclude_filters: list[dict[str, Any]] = []
    end: Any = None  # text, or a time of YAML
    field_aggregate: list[str] = []
    aggregation_interval: str = ""
    file_max_size_mb: int | None = None
    file_max_backups: int | None = None
    file_compress: bool | None = None


class _File(msgspec.Struct, rename="camel"):
    flow_logs: list[_Entry] = []


def parse_file(data: bytes, usual: Rotation) -> tuple[Export, ...]:
    """The file of exports. ``ValueError`` names entry and remedy."""
    try:
        found = msgspec.yaml.decode(data or b"{}", type=_File | None) or _File()
    except msgspec.DecodeError as error:
        raise ValueError(f"no list of flowLogs in YAML: {error}") from error
    return checked(_export(entry, usual) for entry in found.flow_logs)


def checked(exports: Iterable[Export]) -> tuple[Export, ...]:
    """These, when no two of them have a name or a file in common. ``ValueError``."""
    found = tuple(exports)
    for what, values in (
        ("name", [one.name for one in found]),
        ("filePath", [one.path for one in found]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f'{what} "{twice[0]}" is there twice: each export needs its own')
    return found


def _export(entry: _Entry, usual: Rotation) -> Export:
    where = f'flow log "{entry.name}"'
    if not entry.name:
        raise ValueError("a flow log has no name: give it one")
    if entry.file_path != STDOUT and not entry.file_path.startswith("/"):
        raise ValueError(
            f'{where}: filePath is "{entry.file_path}": use an absolute path or stdout'
        )
    try:
        parse_mask(entry.field_mask)
        parse_mask(entry.field_aggregate)
        interval_s = duration(entry.aggregation_interval)
        end_ns = _end(entry.end)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    sizes = (
        (entry.file_max_size_mb, usual.size_mb),
        (entry.file_max_backups, usual.backups),
        (entry.file_compress, usual.compress),
    )
    size_mb, backups, compress = (theirs if own is None else own for own, theirs in sizes)
    return Export(
        entry.name,
        entry.file_path,
        tuple(entry.field_mask),
        read_filters(entry.include_filters, f"{where}: includeFilters"),
        read_filters(entry.exclude_filters, f"{where}: excludeFilters"),
        end_ns,
        tuple(entry.field_aggregate),
        interval_s,
        Rotation(int(size_mb), int(backups), bool(compress)),
    )


def _end(value: object) -> int | None:
    if not value:
        return None
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError as error:
            raise ValueError(f'end is "{value}": use RFC 3339, 2026-01-31T12:00:00Z') from error
    if value.tzinfo is None:
        raise ValueError(f'end is "{value.isoformat()}": say which zone, as 2026-01-31T12:00:00Z')
    return int(value.timestamp() * 10**9)
