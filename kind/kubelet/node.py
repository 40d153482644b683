"""The Node object: registration, conditions, lease. Adapter.

The node is Ready only while it has a CNI configuration, because until then an ordinary pod cannot
get a network; the directory is looked at often, because everything waits for it.
"""

import asyncio
import logging
import os
import platform
from typing import Any

from kind.kubelet import sandbox
from kind.kubelet.api import Api, ApiError
from kind.kubelet.config import Config
from kind.kubelet.events import timestamp

log = logging.getLogger(__name__)

Json = dict[str, Any]

VERSION = "v1.32.0-isthmus"  # the API level that the lab's server and kubelet aim at
LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
HEARTBEAT_S = 10.0
LOOK_S = 0.1
MAX_PODS = 110


def node_object(config: Config) -> Json:
    """The node as it is registered."""
    labels = {
        "kubernetes.io/hostname": config.node,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _architecture(),
    }
    if config.control_plane:
        labels["node-role.kubernetes.io/control-plane"] = ""
    spec = {"podCIDR": config.pod_cidrs[0], "podCIDRs": config.pod_cidrs}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": config.node, "labels": labels},
        "spec": spec,
    }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def node_status(config: Config, network_ready: bool, now: str, before: Json) -> Json:
    """The node's status; ``before`` is the one it replaces, for the times of its conditions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    resources = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory}Ki",
        "pods": str(MAX_PODS),
        "ephemeral-storage": "10Gi",
    }
    ready = (
        ("True", "KubeletReady", "kubelet is posting ready status")
        if network_ready
        else ("False", "KubeletNotReady", "no CNI configuration in /etc/cni/net.d")
    )
    conditions = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", ""),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", ""),
        "PIDPressure": ("False", "KubeletHasSufficientPID", ""),
        "Ready": ready,
    }
    old = {item["type"]: item for item in before.get("conditions") or []}
    # Others have conditions here too: our own agent says NetworkUnavailable.
    listed = [item for item in old.values() if item["type"] not in conditions]
    for name, (word, reason, message) in conditions.items():
        known = old.get(name)
        changed_at = known["lastTransitionTime"] if known and known["status"] == word else now
        listed.append(
            {
                "type": name,
                "status": word,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": changed_at,
            }
        )
    return {
        "addresses": [
            *({"type": "InternalIP", "address": ip} for ip in config.node_ips),
            {"type": "Hostname", "address": config.node},
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": listed,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": {
            "architecture": _architecture(),
            "bootID": "",
            "containerRuntimeVersion": "isthmus://1",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": VERSION,
            "machineID": config.node,
            "operatingSystem": "linux",
            "osImage": "Isthmus lab",
            "systemUUID": config.node,
        },
    }


async def register(config: Config, api: Api) -> None:
    """Create the Node object; an existing one is kept. Waits for the API server."""
    while True:
        try:
            await api.call("POST", "/api/v1/nodes", node_object(config))
        except ApiError as error:
            if error.status == 409:
                return
            log.warning("node not registered error=%s", error)
            await asyncio.sleep(0.1)
        else:
            return


async def keep_status(config: Config, api: Api) -> None:
    """Write the node's status when it changes and at every heartbeat, for ever."""
    path = f"/api/v1/nodes/{config.node}"
    told: bool | None = None
    beat = 0.0
    loop = asyncio.get_running_loop()
    while True:
        ready = sandbox.network_configuration(config.root) is not None
        if ready != told or loop.time() - beat >= HEARTBEAT_S:
            try:
                known = await api.call("GET", path)
                status = node_status(config, ready, timestamp(), known.get("status") or {})
                # The whole list of conditions is replaced: not over what another wrote meanwhile.
                version = known["metadata"]["resourceVersion"]
                body = {"metadata": {"resourceVersion": version}, "status": status}
                await api.merge(path + "/status", body)
                await _renew_lease(config, api)
            except ApiError as error:
                if error.status == 404:
                    await register(config, api)
                elif error.status != 409:
                    log.warning("node status not written error=%s", error)
            else:
                if ready != told:
                    log.info("node condition changed ready=%s", ready)
                told, beat = ready, loop.time()
        await asyncio.sleep(LOOK_S)


async def _renew_lease(config: Config, api: Api) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
    renewed = timestamp().replace("Z", ".000000Z")
    spec = {
        "holderIdentity": config.node,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": renewed,
    }
    try:
        await api.merge(f"{path}/{config.node}", {"spec": spec})
    except ApiError as error:
        if error.status != 404:
            raise
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": config.node, "namespace": LEASE_NAMESPACE},
            "spec": spec,
        }
        try:
            await api.call("POST", path, body)
        except ApiError as inner:
            if inner.status != 404:  # the namespace is made a moment after the first start
                raise
