"""The exports of one service by many clusters → one import, and what they disagree on. Pure.

The rules are those of KEP-1645: every cluster comes to the same result from the same exports. The
oldest export decides (of two as old, the cluster whose name comes first); ports are the union of
all. A disagreement changes nothing of that, but those concerned are told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from model.cluster import ClusterName
from model.service import Protocol, ServiceName
from model.service_export import ExportedPort, ExportType, ServiceExport, SessionAffinity


@dataclass(frozen=True, slots=True)
class Conflict:
    """What clusters disagree on, in a word and in a sentence."""

    reason: str  # as in the condition
    message: str


@dataclass(frozen=True, slots=True)
class Import:
    """An exported service as every cluster sees it."""

    name: ServiceName
    type: ExportType
    ports: tuple[ExportedPort, ...]  # in order of precedence
    affinity: SessionAffinity
    affinity_timeout_s: int | None
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    clusters: tuple[ClusterName, ...]  # by name
    conflict: Conflict | None = None  # the first one only


def merge(exports: Iterable[ServiceExport]) -> Import | None:
    """All exports of one service, at most one of each cluster; ``None`` without any."""
    ordered = sorted(exports, key=lambda e: (e.created, e.cluster))
    if not ordered:
        return None
    oldest = ordered[0]
    return Import(
        name=oldest.name,
        type=oldest.type,
        ports=tuple(_union(ordered)),
        affinity=oldest.affinity,
        affinity_timeout_s=oldest.affinity_timeout_s,
        annotations=oldest.annotations,
        labels=oldest.labels,
        clusters=tuple(sorted(e.cluster for e in ordered)),
        conflict=_conflict(ordered),
    )


def _union(ordered: Sequence[ServiceExport]) -> list[ExportedPort]:
    taken: dict[tuple[int, Protocol], ExportedPort] = {}
    names: set[str] = set()
    for port in (p for export in ordered for p in export.ports):
        if (port.port, port.protocol) in taken or (port.name and port.name in names):
            continue
        taken[port.port, port.protocol] = port
        names.add(port.name)
    return _all_named(list(taken.values()))


def _all_named(ports: list[ExportedPort]) -> list[ExportedPort]:
    """Of several ports each needs a name, and one cluster alone may well have had just one."""
    if len(ports) < 2:
        return ports
    names = {p.name for p in ports}
    named = []
    for port in ports:
        name = port.name or f"{port.protocol.name.lower()}-{port.port}"
        while not port.name and name in names:
            name += "x"
        names.add(name)
        named.append(ExportedPort(port.port, port.protocol, name, port.app_protocol))
    return named


def _conflict(ordered: Sequence[ServiceExport]) -> Conflict | None:
    found = _port_conflict(ordered)
    if found is not None:
        return found
    fields: tuple[tuple[str, str, Callable[[ServiceExport], object]], ...] = (
        ("TypeConflict", "type", lambda e: e.type.value),
        ("SessionAffinityConflict", "sessionAffinity", lambda e: e.affinity.value),
        (
            "SessionAffinityConfigConflict",
            "sessionAffinityConfig.clientIP.timeoutSeconds",
            lambda e: e.affinity_timeout_s,
        ),
        ("AnnotationsConflict", "exportedAnnotations", lambda e: dict(e.annotations)),
        ("LabelsConflict", "exportedLabels", lambda e: dict(e.labels)),
    )
    for reason, field, read in fields:
        others = [e for e in ordered if read(e) != read(ordered[0])]
        if others:
            return _disagree(reason, field, read(ordered[0]), ordered[0], len(others), len(ordered))
    return None


def _port_conflict(ordered: Sequence[ServiceExport]) -> Conflict | None:
    users: dict[str, tuple[ExportedPort, ServiceExport]] = {}
    for export in ordered:
        for port in export.ports:
            first, owner = users.setdefault(port.name, (port, export))
            if port.name and (first.port, first.protocol) != (port.port, port.protocol):
                return Conflict(
                    "PortConflict",
                    f'Port name "{port.name}" is of {_text(first)} in cluster "{owner.cluster}" '
                    f'and of {_text(port)} in cluster "{export.cluster}": the latter is left out; '
                    "give it another name.",
                )
    for field, read in (("name", _name_of), ("appProtocol", _app_of)):
        for number in dict.fromkeys((p.port, p.protocol) for e in ordered for p in e.ports):
            having = [(e, p) for e in ordered for p in e.ports if (p.port, p.protocol) == number]
            first_export, wanted = having[0][0], read(having[0][1])
            differing = len([p for _, p in having if read(p) != wanted])
            if differing:
                what = f"{field} of port {_text(having[0][1])}"
                return _disagree("PortConflict", what, wanted, first_export, differing, len(having))
    return None


def _name_of(port: ExportedPort) -> str:
    return port.name


def _app_of(port: ExportedPort) -> str:
    return port.app_protocol


def _text(port: ExportedPort) -> str:
    return f"{port.port}/{port.protocol.name}"


def _disagree(
    reason: str, field: str, value: object, oldest: ServiceExport, differing: int, among: int
) -> Conflict:
    return Conflict(
        reason,
        f"Conflicting {field}. {differing}/{among} clusters disagree. "
        f'Using "{value}" from oldest service export in cluster "{oldest.cluster}".',
    )
