"""Which metrics are wanted, and with what labels: `hubble-metrics` and the file of them. Pure.

The text is a list separated by blanks, ``name[:option[=value[|value…]][;option…]]``; values are
separated by ``|``, or by commas where there is none. The file is YAML:
``metrics: [{name, contextOptions: [{name, values}], includeFilters, excludeFilters}]``.
Names of options are read without regard to case; options that nobody knows are passed over, as
other versions may know them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf import json_format

from hubble.filters import compile_filters
from hubble.patterns import FilterError
from wire.hubble import flow_pb2 as f

NAMES = (
    "dns",
    "drop",
    "flow",
    "flows-to-world",
    "http",
    "httpV2",
    "icmp",
    "kafka",
    "policy",
    "port-distribution",
    "tcp",
)
IDENTIFIERS = (
    "identity",
    "namespace",
    "pod",
    "pod-name",
    "dns",
    "ip",
    "reserved-identity",
    "workload",
    "workload-name",
    "app",
)
_PROPERTIES = ("ip", "pod", "namespace", "workload", "workload_kind", "app")
LABELS = (
    *(f"source_{what}" for what in _PROPERTIES),
    *(f"destination_{what}" for what in _PROPERTIES),
    "traffic_direction",
)
CONTEXTS = (
    "sourcecontext",
    "sourceegresscontext",
    "sourceingresscontext",
    "destinationcontext",
    "destinationegresscontext",
    "destinationingresscontext",
)
LABELS_CONTEXT = "labelscontext"


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the list."""

    name: str
    options: Mapping[str, tuple[str, ...]]  # by name in small letters
    include: tuple[f.FlowFilter, ...] = ()  # none: every flow
    exclude: tuple[f.FlowFilter, ...] = ()

    def has(self, option: str) -> bool:
        """Is a switch on? ``query`` and ``query=true`` are the same."""
        values = self.options.get(option.lower())
        return values is not None and values != ("false",)


def parse_text(text: str) -> tuple[Metric, ...]:
    """The value of ``hubble-metrics``. ``ValueError`` names entry and remedy."""
    return _checked(_entry(word) for word in text.split())


def _entry(word: str) -> Metric:
    name, _, rest = word.partition(":")
    options: dict[str, tuple[str, ...]] = {}
    for option in filter(None, rest.split(";")):
        key, _, value = option.partition("=")
        separator = "|" if "|" in value else ","
        options[key.lower()] = tuple(part for part in value.split(separator) if part)
    return Metric(name, _in_small_letters(options))


def _in_small_letters(options: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The values of what names contexts."""
    return {
        key: tuple(v.lower() for v in values) if key in (*CONTEXTS, LABELS_CONTEXT) else values
        for key, values in options.items()
    }


class _Option(msgspec.Struct):
    name: str
    values: list[str] = []


class _Entry(msgspec.Struct, rename="camel"):
    name: str
    context_options: list[_Option] = []
    include_filters: list[dict[str, Any]] = []
    exclude_filters: list[dict[str, Any]] = []


class _File(msgspec.Struct):
    metrics: list[_Entry] = []


def parse_file(data: bytes) -> tuple[Metric, ...]:
    """The file of metrics. ``ValueError`` names entry and remedy."""
    try:
        found = msgspec.yaml.decode(data or b"{}", type=_File | None) or _File()
    except msgspec.DecodeError as error:
        raise ValueError(f"no list of metrics in YAML: {error}") from error
    return _checked(_of_file(entry) for entry in found.metrics)


def _of_file(entry: _Entry) -> Metric:
    options = {option.name.lower(): tuple(option.values) for option in entry.context_options}
    where = f'metric "{entry.name}"'
    include = read_filters(entry.include_filters, f"{where}: includeFilters")
    exclude = read_filters(entry.exclude_filters, f"{where}: excludeFilters")
    return Metric(entry.name, _in_small_letters(options), include, exclude)


def read_filters(items: Iterable[Mapping[str, Any]], where: str) -> tuple[f.FlowFilter, ...]:
    """Filters written as in Hubble's API in JSON. ``ValueError`` says which cannot be used."""
    found = []
    for number, item in enumerate(items):
        try:
            one = json_format.ParseDict(dict(item), f.FlowFilter())
            compile_filters([one], [])
        except (json_format.ParseError, FilterError) as error:
            raise ValueError(f"{where}[{number}]: {error}") from error
        found.append(one)
    return tuple(found)


def _checked(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    found: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name not in NAMES:
            raise ValueError(f'there is no metric "{metric.name}": use {", ".join(NAMES)}')
        if metric.name in found:
            raise ValueError(f'metric "{metric.name}" is there twice: write all its options once')
        _check_options(metric)
        found[metric.name] = metric
    if {"http", "httpV2"} <= found.keys():
        raise ValueError("http and httpV2 have metrics of the same names: use one of them")
    return tuple(found.values())


def _check_options(metric: Metric) -> None:
    for option in CONTEXTS:
        for value in metric.options.get(option, ()):
            if value not in IDENTIFIERS:
                raise ValueError(
                    f'metric "{metric.name}": {option} has no "{value}": '
                    f"use {', '.join(IDENTIFIERS)}"
                )
    for value in metric.options.get(LABELS_CONTEXT, ()):
        if value not in LABELS:
            raise ValueError(
                f'metric "{metric.name}": {LABELS_CONTEXT} has no "{value}": '
                f"use {', '.join(LABELS)}"
            )
