"""What `clustermesh status` says. Pure: answers of agents in, lines and figures out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from certs import check

RESOURCES = ("endpoints", "identities", "nodes", "services")


@dataclass(slots=True)
class MeshStatus:
    """The mesh as one cluster's agents see it."""

    nodes: dict[str, dict[str, str]] = field(default_factory=dict)  # agent -> cluster -> why not
    unreachable: dict[str, str] = field(default_factory=dict)  # agent -> error
    expected: tuple[str, ...] = ()
    global_services: list[int] = field(default_factory=list)
    ages: dict[str, int] = field(default_factory=dict)  # cluster -> seconds since it was heard of
    declared: Mapping[str, str] = field(default_factory=dict)  # cluster -> ClusterMeshPeer
    revoked: set[str] = field(default_factory=set)  # clusters whose backends were taken back
    # cluster -> agent -> (state of the data path, percent of connections, what its probes saw)
    paths: dict[str, dict[str, tuple[str, int, str]]] = field(default_factory=dict)
    # cluster -> kind -> (how often an agent refused it at most, example)
    violations: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Agents."""
        return len(self.nodes) + len(self.unreachable)

    def connected(self, agent: str) -> int:
        """To how many clusters an agent is connected and in sync."""
        return sum(not self.nodes[agent].get(name, "") for name in self.expected)

    @property
    def not_ready(self) -> int:
        """Agents that are not connected to all clusters."""
        bad = [a for a in self.nodes if self.connected(a) < len(self.expected)]
        return len(bad) + len(self.unreachable)

    @property
    def ready(self) -> bool:
        """Every agent is connected to every expected cluster, and its packets get there."""
        return self.total > 0 and self.not_ready == 0 and not self.cut_off()

    def cut_off(self) -> list[tuple[str, str, str]]:
        """Agent, cluster and why, where packets do not reach a cluster."""
        return [
            (agent, name, why)
            for name in self.expected
            for agent, (state, _, why) in sorted(self.paths.get(name, {}).items())
            if state == "down"
        ]

    def errors(self) -> list[str]:
        """One line per agent and cluster that are not connected."""
        lines = [f"{agent}: {why}" for agent, why in sorted(self.unreachable.items())]
        for agent, clusters in sorted(self.nodes.items()):
            lines += [
                f"{agent} is not connected to cluster {name}: {why}"
                for name, why in sorted(clusters.items())
                if why and name in self.expected
            ]
        return lines + [
            f"{agent} does not reach the nodes of cluster {name}: {why}"
            for agent, name, why in self.cut_off()
        ]


def why_not_ready(remote: Mapping[str, Any]) -> str:
    """The reason an agent gives for one remote cluster; empty when it is ready."""
    if remote.get("ready"):
        return ""
    if not remote.get("connected"):
        return str(remote.get("status") or "unknown status")
    config = remote.get("config")
    if config is None:
        return "remote cluster configuration retrieval status unknown"
    if config.get("required") and not config.get("retrieved"):
        return str(remote.get("status") or "remote cluster configuration required but not found")
    synced = remote.get("synced")
    if synced is None:
        return "synchronization status unknown"
    missing = [name for name in RESOURCES if not synced.get(name)]
    if missing:
        return f"synchronization in progress for {', '.join(missing)}"
    return "not ready"


def add_agent(status: MeshStatus, agent: str, answer: Mapping[str, Any]) -> None:
    """Take the status of one agent."""
    mesh = answer.get("cluster-mesh") or {}
    found = {remote["name"]: why_not_ready(remote) for remote in mesh.get("clusters") or []}
    status.nodes[agent] = {name: found.get(name, "unknown status") for name in status.expected}
    status.global_services.append(int(mesh.get("num-global-services") or 0))
    for remote in mesh.get("clusters") or []:
        for kind, count, example in _violations(remote):
            kinds = status.violations.setdefault(remote["name"], {})
            kinds[kind] = max(kinds.get(kind, (0, "")), (count, example))
        if path := remote.get("data-path"):
            told = str(path["state"]), int(path["share-percent"]), str(path["status"])
            status.paths.setdefault(str(remote["name"]), {})[agent] = told
        if (age := age_s(remote)) is not None:
            name = str(remote["name"])
            status.ages[name] = max(status.ages.get(name, 0), age)
            if (remote.get("data") or {}).get("revoked"):
                status.revoked.add(name)


def age_s(remote: Mapping[str, Any]) -> int | None:
    """How old a cluster's data are, whole seconds; ``None`` when it is not told."""
    told = (remote.get("data") or {}).get("age-seconds", remote.get("age-seconds"))
    return None if told is None else int(told)


def _violations(remote: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Kind, count and example; an older agent tells the latest record only."""
    found = [
        (str(v["kind"]), int(v["count"]), str(v["example"])) for v in remote.get("violations") or []
    ]
    if not found and remote.get("last-rejected"):
        found.append(("record", int(remote.get("num-rejected") or 1), str(remote["last-rejected"])))
    return found


def add_kvstoremesh(status: MeshStatus, pod: str, clusters: Sequence[Mapping[str, Any]]) -> None:
    """Take the answer of one KVStoreMesh."""
    add_agent(status, pod, {"cluster-mesh": {"clusters": clusters}})


def _counts(status: MeshStatus) -> list[int]:
    return [status.connected(one) for one in status.nodes] + [0] * len(status.unreachable)


def _connection(status: MeshStatus, name: str) -> str:
    configured = sum(
        clusters.get(name, "unknown status") != "unknown status"
        for clusters in status.nodes.values()
    )
    connected = sum(not clusters.get(name, "x") for clusters in status.nodes.values())
    return f"{configured}/{status.total} configured, {connected}/{status.total} connected"


def data_path(agents: Mapping[str, tuple[str, int, str]]) -> str:
    """What of a cluster is out of reach; nothing to say while all of it is in reach."""
    count = Counter(state for state, _, _ in agents.values())
    text = ""
    if count["down"]:
        text += f", data path down on {count['down']}/{len(agents)} nodes: its backends are out"
    if count["returning"]:
        lowest = min(share for state, share, _ in agents.values() if state == "returning")
        text += (
            f", data path returning on {count['returning']}/{len(agents)} nodes: "
            f"its backends get {lowest} % of their connections"
        )
    return text


def statistics(values: Sequence[int]) -> str:
    """``[min:1 / avg:1.7 / max:2]``."""
    if not values:
        return "[min:0 / avg:0.0 / max:0]"
    return f"[min:{min(values)} / avg:{sum(values) / len(values):.1f} / max:{max(values)}]"


def expiry_line(secret: str, ends: datetime, now: datetime) -> str:
    """The line of one certificate."""
    left = ends - now
    if left < timedelta(0):
        return f"❌ Certificate in Secret {secret} expired on {ends:%Y-%m-%d}"
    mark = "⚠️ " if left < check.SOON else "🔏"
    return f"{mark} Certificate in Secret {secret} is good until {ends:%Y-%m-%d} ({left.days} days)"


def waiting(status: MeshStatus, copies: MeshStatus | None, store: bool) -> str:
    """What is not there yet, for who waits."""
    parts = [] if store else ["Deployment clustermesh-apiserver to be ready"]
    if not status.total:
        parts.append("agents to run")
    elif status.not_ready:
        number = status.not_ready
        what = "node is" if number == 1 else "nodes are"
        parts.append(f"clusters to be connected: {number} {what} not ready")
    if status.cut_off():
        parts.append("packets to reach all clusters")
    if copies is not None and not copies.ready:
        parts.append("KVStoreMesh to be connected")
    return ", ".join(parts)


def lines(
    status: MeshStatus,
    service_type: str,
    addresses: Sequence[str],
    port: int,
    expiry: Sequence[str],
    copies: MeshStatus | None = None,
) -> list[str]:
    """The whole report; ``copies`` is what KVStoreMesh says, if there is one."""
    out = []
    if service_type == "NodePort":
        out.append(
            "⚠️  Service type NodePort detected! "
            "Service may fail when nodes are removed from the cluster!"
        )
    out.append(f'✅ Service "clustermesh-apiserver" of type "{service_type}" found')
    out.append("✅ Cluster access information is available:")
    out += [f"  - {address}:{port}" for address in addresses]
    out.append("✅ Deployment clustermesh-apiserver is ready")
    out.append(f"ℹ️  KVStoreMesh is {'disabled' if copies is None else 'enabled'}")
    out += expiry
    out.append("")
    counts = _counts(status)
    if not status.expected:
        out.append("🔌 No cluster connected")
        return out
    if status.not_ready:
        out.append(
            f"⚠️  {status.not_ready}/{status.total} nodes are not connected to all clusters "
            f"{statistics(counts)}"
        )
    else:
        out.append(
            f"✅ All {status.total} nodes are connected to all clusters {statistics(counts)}"
        )
    if copies is not None:
        figures = statistics(_counts(copies))
        out.append(
            f"✅ All {copies.total} KVStoreMesh replicas are connected to all clusters {figures}"
            if copies.ready
            else f"⚠️  {copies.not_ready}/{copies.total} KVStoreMesh replicas are not connected to "
            f"all clusters {figures}"
        )
    out += ["", "🔌 Cluster Connections:"]
    for name in status.expected:
        line = f"  - {name}: {_connection(status, name)}"
        if copies is not None:
            line += f" - KVStoreMesh: {_connection(copies, name)}"
        ages = copies.ages if copies is not None else status.ages
        if name in ages:
            line += f", age of data: {ages[name]} s"
        if name in status.revoked:
            line += ", its backends are taken back"
        if name in status.declared:
            line += f", declared by ClusterMeshPeer {status.declared[name]}"
        line += data_path(status.paths.get(name, {}))
        out.append(line)
    out += ["", f"🔀 Global services: {statistics(status.global_services)}"]
    if status.violations:
        out += ["", "⚠️  Rejected records:"]
        out += [
            f"  - {name}: {count} {kind}, as: {example}"
            for name, kinds in sorted(status.violations.items())
            for kind, (count, example) in sorted(kinds.items())
        ]
    errors = [*status.errors(), *(copies.errors() if copies else ())]
    if errors:
        out += ["", f"❌ {len({e.split(' ')[0] for e in errors})} Errors:"]
        out += [f"  ❌ {error}" for error in errors]
    return out


def as_json(
    status: MeshStatus, access: Mapping[str, Any], copies: MeshStatus | None = None
) -> dict[str, Any]:
    """For scripts; zero values are left out, as the well-known tool does."""
    body = {
        "access_information": dict(access),
        "connectivity": _connectivity(status, "cilium"),
        "age_seconds": status.ages,
        "revoked": sorted(status.revoked),
        "declared_by": dict(status.declared),
        "data_path": {
            name: {
                agent: {"state": state, "share_percent": share, "status": why}
                for agent, (state, share, why) in sorted(agents.items())
            }
            for name, agents in sorted(status.paths.items())
        },
        "kvstoremesh": {"enabled": False},
        "violations": {
            name: [
                {"kind": kind, "count": count, "example": example}
                for kind, (count, example) in sorted(kinds.items())
            ]
            for name, kinds in sorted(status.violations.items())
        },
    }
    if copies is not None:
        said = _connectivity(copies, "kvstoremesh") | {"age_seconds": copies.ages}
        body["kvstoremesh"] = {"enabled": True, "status": said}
    pruned = _without_zeros(body)
    assert isinstance(pruned, dict)
    return pruned


def _connectivity(status: MeshStatus, who: str) -> dict[str, Any]:
    counts = _counts(status)
    clusters = {
        name: {
            "configured": sum(c.get(name) != "unknown status" for c in status.nodes.values()),
            "connected": sum(not c.get(name, "x") for c in status.nodes.values()),
        }
        for name in status.expected
    }
    connected = (
        {"min": min(counts), "avg": sum(counts) / len(counts), "max": max(counts)} if counts else {}
    )
    return {
        "connected": connected,
        "clusters": clusters,
        "total": status.total,
        "not_ready": status.not_ready,
        "errors": {who: status.errors()} if status.errors() else None,
    }


def _without_zeros(value: Any) -> Any:
    if isinstance(value, dict):
        out = {k: _without_zeros(v) for k, v in value.items()}
        return {k: v for k, v in out.items() if v not in (None, 0, "", [], {}) or v is False}
    return value
