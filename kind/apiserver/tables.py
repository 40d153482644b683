"""What ``kubectl get`` prints: objects as rows of a ``Table``. Pure; the clock is an argument."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kind.apiserver.objects import Obj, condition, dicts, dig, meta
from kind.apiserver.resources import Resource

Cell = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and how its cell is found; priority 1 shows only in ``-o wide``."""

    name: str
    cell: Callable[[Obj, datetime], Any]
    wide: bool = False
    type: str = "string"

    def definition(self) -> Obj:
        return {
            "name": self.name,
            "type": self.type,
            "format": "name" if self.name == "Name" else "",
            "description": f"{self.name} of the object",
            "priority": int(self.wide),
        }


def parse_time(text: object) -> datetime | None:
    """RFC 3339, or ``None``."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None


def duration(seconds: float) -> str:
    """As kubectl shortens it: 5s, 3m20s, 4h, 2d3h."""
    s = max(0, int(seconds))
    if s < 120:
        return f"{s}s"
    if s < 600:
        return f"{s // 60}m{s % 60}s" if s % 60 else f"{s // 60}m"
    if s < 3 * 3600:
        return f"{s // 60}m"
    if s < 8 * 3600:
        return f"{s // 3600}h{s % 3600 // 60}m" if s % 3600 // 60 else f"{s // 3600}h"
    if s < 48 * 3600:
        return f"{s // 3600}h"
    if s < 8 * 86400:
        return f"{s // 86400}d{s % 86400 // 3600}h" if s % 86400 // 3600 else f"{s // 86400}d"
    return f"{s // 86400}d"


def since(text: object, now: datetime) -> str:
    """The age of a time stamp."""
    then = parse_time(text) if text else None
    return duration((now - then).total_seconds()) if then else "<unknown>"


def _age(o: Obj, now: datetime) -> str:
    return since(meta(o).get("creationTimestamp"), now)


def _path(*steps: str | int, default: Cell = "<none>") -> Callable[[Obj, datetime], Any]:
    def cell(o: Obj, now: datetime) -> Any:
        found = dig(o, *steps)
        return default if found in (None, "", []) else found

    return cell


def _labels_text(labels: object) -> str:
    if not isinstance(labels, dict) or not labels:
        return "<none>"
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()))


def selector_text(selector: object) -> str:
    """A LabelSelector, or a plain map, on one line."""
    if not isinstance(selector, dict):
        return "<none>"
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return _labels_text(selector)
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for e in dicts(selector.get("matchExpressions")):
        values = ",".join(e.get("values") or [])
        match e.get("operator"):
            case "In" | "NotIn" as op:
                parts.append(f"{e.get('key')} {op.lower()} ({values})")
            case "Exists":
                parts.append(str(e.get("key")))
            case _:
                parts.append(f"!{e.get('key')}")
    return ",".join(parts) or "<none>"


NAME = Column("Name", lambda o, now: meta(o).get("name"))
AGE = Column("Age", _age)


def _containers(o: Obj, at: tuple[str, ...], what: str) -> str:
    found = dicts(dig(o, *at, "containers"))
    return ",".join(str(c.get(what) or "") for c in found) or "<none>"


def _workload_wide() -> tuple[Column, ...]:
    at = ("spec", "template", "spec")
    return (
        Column("Containers", lambda o, now: _containers(o, at, "name"), wide=True),
        Column("Images", lambda o, now: _containers(o, at, "image"), wide=True),
        Column("Selector", lambda o, now: selector_text(dig(o, "spec", "selector")), wide=True),
    )


def _number(*steps: str) -> Callable[[Obj, datetime], Any]:
    return _path(*steps, default=0)


def pod_status(o: Obj) -> str:
    """The word in kubectl's STATUS column."""
    out = str(dig(o, "status", "reason") or dig(o, "status", "phase") or "Unknown")
    for c in dicts(dig(o, "status", "initContainerStatuses")):
        waiting, done = dig(c, "state", "waiting"), dig(c, "state", "terminated")
        if done and done.get("exitCode") == 0:
            continue
        if done:
            out = f"Init:{done.get('reason') or 'ExitCode:' + str(done.get('exitCode'))}"
        elif waiting and waiting.get("reason") not in (None, "PodInitializing"):
            out = f"Init:{waiting['reason']}"
        break
    running = False
    for c in reversed(dicts(dig(o, "status", "containerStatuses"))):
        waiting, done = dig(c, "state", "waiting"), dig(c, "state", "terminated")
        if waiting and waiting.get("reason"):
            out = waiting["reason"]
        elif done:
            out = str(done.get("reason") or f"ExitCode:{done.get('exitCode')}")
        elif c.get("ready") and dig(c, "state", "running") is not None:
            running = True
    if out == "Completed" and running:
        out = "Running"
    if meta(o).get("deletionTimestamp"):
        return "Unknown" if dig(o, "status", "reason") == "NodeLost" else "Terminating"
    return out


def _pod_ready(o: Obj, now: datetime) -> str:
    statuses = dicts(dig(o, "status", "containerStatuses"))
    total = len(dicts(dig(o, "spec", "containers")))
    return f"{sum(1 for c in statuses if c.get('ready'))}/{total}"


def _pod_restarts(o: Obj, now: datetime) -> str:
    statuses = dicts(dig(o, "status", "containerStatuses"))
    count = sum(int(c.get("restartCount") or 0) for c in statuses)
    ends = [dig(c, "lastState", "terminated", "finishedAt") for c in statuses]
    last = max((e for e in ends if e), default=None)
    return f"{count} ({since(last, now)} ago)" if count and last else str(count)


def _gates(o: Obj, now: datetime) -> str:
    gates = dicts(dig(o, "spec", "readinessGates"))
    if not gates:
        return "<none>"
    ready = sum(
        1
        for g in gates
        if (condition(o, str(g.get("conditionType"))) or {}).get("status") == "True"
    )
    return f"{ready}/{len(gates)}"


def _node_status(o: Obj, now: datetime) -> str:
    ready = condition(o, "Ready")
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return word + (",SchedulingDisabled" if dig(o, "spec", "unschedulable") else "")


def _node_roles(o: Obj, now: datetime) -> str:
    mark = "node-role.kubernetes.io/"
    roles = sorted(
        k.removeprefix(mark) for k in (meta(o).get("labels") or {}) if k.startswith(mark)
    )
    return ",".join(roles) or "<none>"


def _address(kind: str) -> Callable[[Obj, datetime], Any]:
    def cell(o: Obj, now: datetime) -> str:
        found = dicts(dig(o, "status", "addresses"))
        return next((str(a.get("address")) for a in found if a.get("type") == kind), "<none>")

    return cell


def _info(field: str) -> Callable[[Obj, datetime], Any]:
    return _path("status", "nodeInfo", field, default="<unknown>")


def _service_ports(o: Obj, now: datetime) -> str:
    out = []
    for p in dicts(dig(o, "spec", "ports")):
        node = f":{p['nodePort']}" if p.get("nodePort") else ""
        out.append(f"{p.get('port')}{node}/{p.get('protocol')}")
    return ",".join(out) or "<none>"


def _external(o: Obj, now: datetime) -> str:
    spec = o.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName"))
    ingress = [
        str(i.get("ip") or i.get("hostname"))
        for i in dicts(dig(o, "status", "loadBalancer", "ingress"))
    ]
    found = ingress + list(spec.get("externalIPs") or [])
    return ",".join(found) or ("<pending>" if spec.get("type") == "LoadBalancer" else "<none>")


def _short(items: list[str], limit: int = 3) -> str:
    if not items:
        return "<none>"
    more = f" + {len(items) - limit} more..." if len(items) > limit else ""
    return ",".join(items[:limit]) + more


def _endpoints(o: Obj, now: datetime) -> str:
    out = []
    for subset in dicts(o.get("subsets")):
        ports = [p.get("port") for p in dicts(subset.get("ports"))] or [None]
        for p in ports:
            out += [
                f"{a.get('ip')}:{p}" if p else str(a.get("ip"))
                for a in dicts(subset.get("addresses"))
            ]
    return _short(out)


def _slice_ports(o: Obj, now: datetime) -> str:
    return _short([str(p.get("port")) for p in dicts(o.get("ports"))])


def _slice_endpoints(o: Obj, now: datetime) -> str:
    return _short([a for e in dicts(o.get("endpoints")) for a in e.get("addresses") or []])


def _event_time(o: Obj, now: datetime) -> str:
    return since(
        o.get("lastTimestamp")
        or o.get("eventTime")
        or o.get("firstTimestamp")
        or meta(o).get("creationTimestamp"),
        now,
    )


def _event_object(o: Obj, now: datetime) -> str:
    ref = o.get("involvedObject") or o.get("regarding") or {}
    return f"{str(ref.get('kind') or '').lower()}/{ref.get('name')}"


def _deployment_ready(o: Obj, now: datetime) -> str:
    ready = dig(o, "status", "readyReplicas") or 0
    return f"{ready}/{dig(o, 'spec', 'replicas') or 0}"


def _job_duration(o: Obj, now: datetime) -> str:
    start = parse_time(dig(o, "status", "startTime"))
    end = parse_time(dig(o, "status", "completionTime")) or now
    return duration((end - start).total_seconds()) if start else ""


def _job_status(o: Obj, now: datetime) -> str:
    for kind, word in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if (condition(o, kind) or {}).get("status") == "True":
            return word
    return "Running"


_REPLICAS = (
    Column("Desired", _number("spec", "replicas"), type="integer"),
    Column("Current", _number("status", "replicas"), type="integer"),
    Column("Ready", _number("status", "readyReplicas"), type="integer"),
)
_DATA = Column(
    "Data",
    lambda o, now: len(o.get("data") or {}) + len(o.get("binaryData") or {}),
    type="integer",
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "core/pods": (
        NAME,
        Column("Ready", _pod_ready),
        Column("Status", lambda o, now: pod_status(o)),
        Column("Restarts", _pod_restarts),
        AGE,
        Column("IP", _path("status", "podIP"), wide=True),
        Column("Node", _path("spec", "nodeName"), wide=True),
        Column("Nominated Node", _path("status", "nominatedNodeName"), wide=True),
        Column("Readiness Gates", _gates, wide=True),
    ),
    "core/nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        Column("Version", _path("status", "nodeInfo", "kubeletVersion", default="")),
        Column("Internal-IP", _address("InternalIP"), wide=True),
        Column("External-IP", _address("ExternalIP"), wide=True),
        Column("OS-Image", _info("osImage"), wide=True),
        Column("Kernel-Version", _info("kernelVersion"), wide=True),
        Column("Container-Runtime", _info("containerRuntimeVersion"), wide=True),
    ),
    "core/services": (
        NAME,
        Column("Type", _path("spec", "type")),
        Column("Cluster-IP", _path("spec", "clusterIP")),
        Column("External-IP", _external),
        Column("Port(s)", _service_ports),
        AGE,
        Column("Selector", lambda o, now: _labels_text(dig(o, "spec", "selector")), wide=True),
    ),
    "core/namespaces": (NAME, Column("Status", _path("status", "phase")), AGE),
    "core/endpoints": (NAME, Column("Endpoints", _endpoints), AGE),
    "core/configmaps": (NAME, _DATA, AGE),
    "core/secrets": (NAME, Column("Type", _path("type")), _DATA, AGE),
    "core/serviceaccounts": (
        NAME,
        Column("Secrets", lambda o, now: len(o.get("secrets") or []), type="integer"),
        AGE,
    ),
    "core/events": (
        Column("Last Seen", _event_time),
        Column("Type", _path("type")),
        Column("Reason", _path("reason")),
        Column("Object", _event_object),
        Column("Message", lambda o, now: str(o.get("message") or o.get("note") or "").strip()),
        Column("Source", _path("source", "component", default=""), wide=True),
        Column("Count", _path("count", default=1), wide=True),
        Column("Name", lambda o, now: meta(o).get("name"), wide=True),
    ),
    "apps/deployments": (
        NAME,
        Column("Ready", _deployment_ready),
        Column("Up-to-date", _number("status", "updatedReplicas"), type="integer"),
        Column("Available", _number("status", "availableReplicas"), type="integer"),
        AGE,
        *_workload_wide(),
    ),
    "apps/replicasets": (NAME, *_REPLICAS, AGE, *_workload_wide()),
    "apps/statefulsets": (NAME, Column("Ready", _deployment_ready), AGE, *_workload_wide()[:2]),
    "apps/daemonsets": (
        NAME,
        Column("Desired", _number("status", "desiredNumberScheduled"), type="integer"),
        Column("Current", _number("status", "currentNumberScheduled"), type="integer"),
        Column("Ready", _number("status", "numberReady"), type="integer"),
        Column("Up-to-date", _number("status", "updatedNumberScheduled"), type="integer"),
        Column("Available", _number("status", "numberAvailable"), type="integer"),
        Column(
            "Node Selector",
            lambda o, now: _labels_text(dig(o, "spec", "template", "spec", "nodeSelector")),
        ),
        AGE,
        *_workload_wide(),
    ),
    "batch/jobs": (
        NAME,
        Column("Status", _job_status),
        Column(
            "Completions",
            lambda o, now: (
                f"{dig(o, 'status', 'succeeded') or 0}/{dig(o, 'spec', 'completions') or 1}"
            ),
        ),
        Column("Duration", _job_duration),
        AGE,
        *_workload_wide(),
    ),
    "discovery.k8s.io/endpointslices": (
        NAME,
        Column("AddressType", _path("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
    "coordination.k8s.io/leases": (NAME, Column("Holder", _path("spec", "holderIdentity")), AGE),
    "apiextensions.k8s.io/customresourcedefinitions": (
        NAME,
        Column("Created At", _path("metadata", "creationTimestamp")),
    ),
    "networking.k8s.io/networkpolicies": (
        NAME,
        Column("Pod-Selector", lambda o, now: selector_text(dig(o, "spec", "podSelector"))),
        AGE,
    ),
}
_DEFAULT = (NAME, AGE)
_STEP = re.compile(
    r"\.?([A-Za-z0-9_\-/\x00]+)|\['((?:[^'\\]|\\.)+)'\]|\[(\d+)\]|"
    r"\[\?\(@\.([A-Za-z0-9_.]+)\s*==\s*['\"]([^'\"]*)['\"]\)\]|\[(\*)\]"
)


def json_path(obj: Obj, path: str) -> list[Any]:
    """The values a printer column's JSONPath finds; the subset CRDs use (no recursion)."""
    found: list[Any] = [obj]
    text, at = path.replace("\\.", "\0"), 0
    while at < len(text) and found:
        step = _STEP.match(text, at)
        if not step:
            if text[at] == ".":
                at += 1
                continue
            return []
        at = step.end()
        name, quoted, index, field, wanted, star = step.groups()
        key = (name or quoted or "").replace("\0", ".").replace("\\", "")
        if key:
            found = [v[key] for v in found if isinstance(v, dict) and key in v]
        elif index:
            found = [v[int(index)] for v in found if isinstance(v, list) and int(index) < len(v)]
        elif field:
            found = [i for v in found for i in dicts(v) if str(dig(i, *field.split("."))) == wanted]
        elif star:
            found = [i for v in found if isinstance(v, list) for i in v]
    return found


def _custom_cell(path: str, kind: str) -> Callable[[Obj, datetime], Any]:
    def cell(o: Obj, now: datetime) -> Any:
        found = [f for f in json_path(o, path) if f is not None]
        if not found:
            return None
        if kind == "date":
            return since(found[0], now)
        if kind in ("integer", "number", "boolean"):
            return found[0]
        return ",".join(f if isinstance(f, str) else str(f) for f in found)

    return cell


def columns_of(resource: Resource) -> tuple[Column, ...]:
    """The columns of a resource; CRDs bring their own."""
    if not resource.custom:
        return COLUMNS.get(resource.table, _DEFAULT)
    if not resource.columns:
        return _DEFAULT
    out = [NAME]
    for c in resource.columns:
        kind = str(c.get("type") or "string")
        out.append(
            Column(
                str(c.get("name")),
                _custom_cell(str(c.get("jsonPath") or ""), kind),
                wide=bool(c.get("priority")),
                type=kind,
            )
        )
    return tuple(out)


def to_table(
    resource: Resource,
    items: list[Obj],
    now: datetime,
    include: str,
    list_meta: Obj,
    headings: bool = True,
) -> Obj:
    """A ``Table``; ``include`` is ``Metadata``, ``Object`` or ``None`` as the client asks."""
    columns = columns_of(resource)
    rows = []
    for o in items:
        row: Obj = {"cells": [c.cell(o, now) for c in columns]}
        if include == "Object":
            row["object"] = o
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta(o),
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": [c.definition() for c in columns] if headings else None,
        "rows": rows,
    }
