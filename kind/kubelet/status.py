"""The status of a pod from what its containers do. Pure.

The rules are those of the pod life cycle in the Kubernetes documentation: phase, conditions,
container statuses; readiness is the probe's word and ends at once when deletion begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"


@dataclass(slots=True)
class ContainerState:
    """What the kubelet knows of one container of a pod."""

    name: str
    image: str = ""
    state: str = WAITING
    reason: str = "ContainerCreating"
    message: str = ""
    container_id: str = ""
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    restarts: int = 0
    ready: bool = False
    started: bool = False
    last: Json = field(default_factory=dict)  # state of the run before, as the API shows it

    def as_state(self) -> Json:
        """The ``state`` of the API."""
        if self.state == RUNNING:
            return {RUNNING: {"startedAt": self.started_at}}
        if self.state == TERMINATED:
            value: Json = {
                "exitCode": self.exit_code,
                "reason": self.reason,
                "startedAt": self.started_at,
                "finishedAt": self.finished_at,
                "containerID": _id(self.container_id),
            }
            if self.message:
                value["message"] = self.message
            return {TERMINATED: value}
        waiting = {"reason": self.reason}
        if self.message:
            waiting["message"] = self.message
        return {WAITING: waiting}

    def as_status(self) -> Json:
        """The container's entry in the pod's status."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "containerID": _id(self.container_id),
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.as_state(),
            "lastState": self.last,
        }


def _id(container_id: str) -> str:
    return f"isthmus://{container_id}" if container_id else ""


def exit_reason(exit_code: int) -> str:
    """The word for how a container ended."""
    return "Completed" if exit_code == 0 else "Error"


def phase(
    restart_policy: str, inits: Sequence[ContainerState], mains: Sequence[ContainerState]
) -> str:
    """Pending, Running, Succeeded or Failed."""
    if restart_policy == "Never" and any(
        item.state == TERMINATED and item.exit_code != 0 for item in inits
    ):
        return "Failed"
    ended = [item.state == TERMINATED for item in mains]
    if mains and all(ended) and restart_policy != "Always":
        if all(item.exit_code == 0 for item in mains):
            return "Succeeded"
        if restart_policy == "Never":
            return "Failed"
        return "Running"  # OnFailure: it will be tried again
    if any(item.state != WAITING or item.restarts or item.last for item in mains):
        return "Running"
    return "Pending"


@dataclass(frozen=True, slots=True)
class PodView:
    """What a status is made from."""

    pod: Json
    inits: Sequence[ContainerState]
    mains: Sequence[ContainerState]
    initialized: bool
    deleting: bool
    host_ips: Sequence[str]  # one per family
    pod_ips: Sequence[str]  # none: it has no network yet
    start_time: str
    message: str  # why the pod cannot start, when it cannot


def pod_status(view: PodView, now: str) -> Json:
    """The whole status of a pod; times of unchanged conditions are kept from the pod's own."""
    mains = view.mains
    state = phase(view.pod["spec"].get("restartPolicy", "Always"), view.inits, mains)
    done = state in ("Succeeded", "Failed")
    unready = [item.name for item in mains if not item.ready]
    containers_ready = not unready and not done and not view.deleting
    gates = _gates(view.pod)
    conditions = {
        "PodReadyToStartContainers": bool(view.pod_ips) and not done,
        "Initialized": view.initialized,
        "ContainersReady": containers_ready,
        "Ready": containers_ready and all(gates.values()),
        "PodScheduled": True,
    }
    if done and state == "Succeeded":
        reason = "PodCompleted"
    else:
        reason = "ContainersNotReady" if unready else "ReadinessGatesNotReady"
    text = f"containers with unready status: [{' '.join(unready)}]" if unready else ""
    status: Json = {
        "phase": state,
        "hostIP": view.host_ips[0],
        "hostIPs": [{"ip": ip} for ip in view.host_ips],
        "startTime": view.start_time,
        "qosClass": "BestEffort",
        "conditions": _conditions(view.pod, conditions, reason, text, now),
        "containerStatuses": [item.as_status() for item in mains],
    }
    if view.inits:
        status["initContainerStatuses"] = [item.as_status() for item in view.inits]
    if view.pod_ips:
        status["podIP"] = view.pod_ips[0]
        status["podIPs"] = [{"ip": ip} for ip in view.pod_ips]
    if view.message:
        status["message"] = view.message
    return status


def _gates(pod: Json) -> dict[str, bool]:
    present = {item["type"]: item["status"] for item in _existing(pod)}
    wanted = pod["spec"].get("readinessGates") or []
    return {gate["conditionType"]: present.get(gate["conditionType"]) == "True" for gate in wanted}


def _existing(pod: Json) -> list[Json]:
    return list((pod.get("status") or {}).get("conditions") or [])


def _conditions(
    pod: Json, values: Mapping[str, bool], reason: str, text: str, now: str
) -> list[Json]:
    before = {item["type"]: item for item in _existing(pod)}
    result = [item for item in before.values() if item["type"] not in values]
    for name, value in values.items():
        word = "True" if value else "False"
        old = before.get(name)
        same = old is not None and old["status"] == word
        condition: Json = {
            "type": name,
            "status": word,
            "lastProbeTime": None,
            "lastTransitionTime": old["lastTransitionTime"] if old and same else now,
        }
        if not value and name in ("Ready", "ContainersReady"):
            condition |= {"reason": reason, "message": text}
        result.append(condition)
    return result
