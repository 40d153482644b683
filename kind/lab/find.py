"""Find a node or a pod of a lab by name, from what its runtimes know. Adapter.

It asks no API server, so it works while one is down.
"""

from dataclasses import dataclass
from pathlib import Path

from kind.lab.topology import LabError, Node, Topology
from kind.runtime.client import Client, RuntimeGone
from kind.runtime.records import Record


@dataclass(frozen=True, slots=True)
class Found:
    """A container of a pod; the newest run of it."""

    node: Node
    namespace: str
    pod: str
    container: str
    record: Record


def containers(lab: Topology) -> list[Found]:
    """The newest run of every container of the lab; nodes whose runtime is gone are left out."""
    newest: dict[tuple[str, str, str], Found] = {}
    for node in lab.nodes:
        try:
            records = Client(str(node.directory)).list()
        except RuntimeGone:
            continue
        for record in records:
            found = _read(node, record)
            if found is None:
                continue
            key = (node.name, found.pod + found.namespace, found.container)
            if key not in newest or newest[key].record.started_at <= record.started_at:
                newest[key] = found
    return sorted(newest.values(), key=lambda item: (item.node.name, item.namespace, item.pod))


def services(node: Node) -> list[Record]:
    """etcd, API server, kubelet and the like of one node."""
    return [record for record in Client(str(node.directory)).list() if record.launch.restart]


def _read(node: Node, record: Record) -> Found | None:
    parts = record.launch.id.split(".")
    if len(parts) != 3:
        return None
    # The log is .../NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log; none of these may hold a "_".
    names = Path(record.launch.log).parts[-3].split("_")
    return Found(node, names[0], names[1], parts[1], record)


def pod(lab: Topology, name: str, cluster: str, namespace: str, container: str) -> Found:
    """A container by its pod's name or an unambiguous beginning of it. Raises LabError."""
    if "/" in name:
        first, _, name = name.partition("/")
        if first in {item.name for item in lab.clusters}:
            cluster = first
        else:
            namespace = first
    candidates = [
        item
        for item in containers(lab)
        if item.pod.startswith(name)
        and cluster in ("", item.node.cluster)
        and namespace in ("", item.namespace)
        and container in ("", item.container)
    ]
    exact = [item for item in candidates if item.pod == name]
    candidates = exact or candidates
    pods = {(item.node.name, item.namespace, item.pod) for item in candidates}
    if not pods:
        known = ", ".join(sorted({item.pod for item in containers(lab)})) or "none"
        raise LabError(f"lab {lab.name!r} has no node or pod {name!r}; pods: {known}")
    if len(pods) > 1:
        listed = ", ".join(sorted(f"{node}:{space}/{pod}" for node, space, pod in pods))
        raise LabError(f"{name!r} is more than one pod: {listed}; use --cluster or -n")
    # The first that the pod lists cannot be known here; the oldest run is it or stands for it.
    running = [item for item in candidates if item.record.state == "running"]
    return min(running or candidates, key=lambda item: item.record.started_at)


def node(lab: Topology, name: str) -> Node | None:
    """A node by name."""
    return next((item for item in lab.nodes if item.name == name), None)
