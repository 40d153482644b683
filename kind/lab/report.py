"""What ``isthmus lab status`` says: nodes, processes, pods; and whether all is well. Adapter."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kind.kubelet.api import Api, ApiError
from kind.lab import find, pki
from kind.lab.state import LabRecord
from kind.lab.topology import Cluster
from kind.runtime.client import RuntimeGone
from reconcile.tasks import TaskGroup

Json = dict[str, Any]


@dataclass(slots=True)
class Report:
    """The state of a lab, ready to be shown or printed as JSON."""

    lab: Json
    clusters: list[Json] = field(default_factory=list)
    nodes: list[Json] = field(default_factory=list)
    processes: list[Json] = field(default_factory=list)
    pods: list[Json] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> Json:
        """Everything, with ``healthy``."""
        return {
            "lab": self.lab,
            "healthy": not self.problems,
            "problems": self.problems,
            "clusters": self.clusters,
            "nodes": self.nodes,
            "processes": self.processes,
            "pods": self.pods,
        }


def condition(item: Json, name: str) -> bool:
    """True when an object's condition of that name is."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(c["type"] == name and c["status"] == "True" for c in conditions)


def make(record: LabRecord) -> Report:
    """Look at everything once."""
    lab = record.topology()
    report = Report(
        lab={
            "name": record.name,
            "created": record.created,
            "by": record.by,
            "kubeconfig": str(lab.kubeconfig),
            "underlayMTU": record.underlay_mtu,
        }
    )
    for node in lab.nodes:
        try:
            services = find.services(node)
        except RuntimeGone:
            report.problems.append(f"node {node.name}: its runtime does not answer")
            continue
        for service in services:
            report.processes.append(
                {
                    "node": node.name,
                    "name": service.launch.id,
                    "pid": service.pid,
                    "state": service.state,
                    "restarts": service.restarts,
                    "log": service.launch.log,
                }
            )
            if service.state != "running":
                report.problems.append(
                    f"{node.name}: {service.launch.id} is down; see {service.launch.log}"
                )
    asyncio.run(_ask(lab.clusters, record.ports, report))
    return report


async def _ask(clusters: Sequence[Cluster], ports: Sequence[int], report: Report) -> None:
    async with TaskGroup() as tasks:
        for cluster, port in zip(clusters, ports, strict=True):
            tasks.create_task(_ask_cluster(cluster, f"https://127.0.0.1:{port}", report))


async def _ask_cluster(cluster: Cluster, url: str, report: Report) -> None:
    files = pki.paths(cluster)
    report.clusters.append(
        {
            "name": cluster.name,
            "server": url,
            "podCIDR": str(cluster.pod_cidr),
            "podCIDRs": [str(cidr) for cidr in cluster.pod_cidrs],
            "serviceCIDR": str(cluster.service_cidr),
        }
    )
    try:
        async with Api(url, files.ca_cert, files.token(pki.ADMIN)) as api:
            nodes = (await api.call("GET", "/api/v1/nodes"))["items"]
            pods = (await api.call("GET", "/api/v1/pods"))["items"]
    except (ApiError, KeyError, OSError) as error:
        report.problems.append(f"{cluster.name}: the API server does not answer: {error}")
        return
    ready = {item["metadata"]["name"]: condition(item, "Ready") for item in nodes}
    for node in cluster.nodes:
        report.nodes.append(
            {
                "cluster": cluster.name,
                "name": node.name,
                "address": str(node.address),
                "podCIDR": str(node.pod_cidr),
                "ready": ready.get(node.name, False),
            }
        )
        if not ready.get(node.name):
            report.problems.append(f"{cluster.name}: node {node.name} is not Ready")
    for item in pods:
        _add_pod(cluster, item, report)


def _add_pod(cluster: Cluster, item: Json, report: Report) -> None:
    metadata, status = item["metadata"], item.get("status") or {}
    done = status.get("phase") == "Succeeded" or "deletionTimestamp" in metadata
    report.pods.append(
        {
            "cluster": cluster.name,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "node": item["spec"].get("nodeName", ""),
            "ip": status.get("podIP", ""),
            "phase": "Terminating"
            if "deletionTimestamp" in metadata
            else status.get("phase", "Pending"),
            "ready": condition(item, "Ready"),
            "restarts": sum(c["restartCount"] for c in status.get("containerStatuses") or []),
        }
    )
    # Only the cluster's own pods decide: a user's pod may be broken on purpose.
    if metadata["namespace"] == "kube-system" and not done and not condition(item, "Ready"):
        report.problems.append(
            f"{cluster.name}: pod kube-system/{metadata['name']} is not Ready"
            + (f" ({status['message']})" if status.get("message") else "")
        )
