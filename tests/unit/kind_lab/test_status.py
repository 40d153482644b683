"""kind.kubelet.status: the pod's life cycle as the API shows it."""

from typing import Any

import pytest

from kind.kubelet import status
from kind.kubelet.status import RUNNING, TERMINATED, WAITING, ContainerState, PodView

NOW = "2026-01-02T00:00:00Z"


def container(name: str = "c", **fields: Any) -> ContainerState:
    return ContainerState(name, "image", **fields)


def ended(code: int) -> ContainerState:
    return container(state=TERMINATED, exit_code=code, reason=status.exit_reason(code))


@pytest.mark.parametrize(
    ("policy", "inits", "mains", "expected"),
    [
        ("Always", [], [container()], "Pending"),
        ("Always", [], [container(state=RUNNING)], "Running"),
        ("Always", [], [ended(1)], "Running"),
        ("Always", [], [ended(0)], "Running"),
        ("Never", [], [ended(0)], "Succeeded"),
        ("Never", [], [ended(1)], "Failed"),
        ("OnFailure", [], [ended(1)], "Running"),
        ("OnFailure", [], [ended(0)], "Succeeded"),
        ("Never", [], [ended(0), container(state=RUNNING)], "Running"),
        ("Never", [ended(1)], [container()], "Failed"),
        ("Always", [ended(1)], [container()], "Pending"),
        ("Always", [], [container(state=WAITING, restarts=1)], "Running"),
    ],
)
def test_phase(
    policy: str, inits: list[ContainerState], mains: list[ContainerState], expected: str
) -> None:
    """The phase follows from restart policy and container states alone."""
    assert status.phase(policy, inits, mains) == expected


def view(mains: list[ContainerState], pod: dict[str, Any] | None = None, **changes: Any) -> PodView:
    fields: dict[str, Any] = {
        "pod": pod or {"spec": {"restartPolicy": "Always"}},
        "inits": [],
        "mains": mains,
        "initialized": True,
        "deleting": False,
        "host_ips": ["172.20.1.1"],
        "pod_ips": ["10.1.1.9"],
        "start_time": NOW,
        "message": "",
    }
    return PodView(**(fields | changes))


def conditions(made: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in made["conditions"]}


def test_ready_needs_every_container() -> None:
    """One unready container makes the pod unready and is named."""
    made = status.pod_status(
        view([container("a", state=RUNNING, ready=True), container("b", state=RUNNING)]), NOW
    )
    assert conditions(made)["Ready"] == "False"
    message = next(c["message"] for c in made["conditions"] if c["type"] == "Ready")
    assert message == "containers with unready status: [b]"


def test_deletion_ends_readiness() -> None:
    """A pod that is being deleted is not Ready whatever its probes say: traffic goes elsewhere."""
    good = container(state=RUNNING, ready=True)
    assert conditions(status.pod_status(view([good]), NOW))["Ready"] == "True"
    assert conditions(status.pod_status(view([good], deleting=True), NOW))["Ready"] == "False"


def test_transition_time_is_kept() -> None:
    """The time of a condition changes only with its value; foreign conditions stay."""
    old = [
        {"type": "Ready", "status": "True", "lastTransitionTime": "T0"},
        {"type": "ContainersReady", "status": "False", "lastTransitionTime": "T0"},
        {"type": "example.com/gate", "status": "True", "lastTransitionTime": "T0"},
    ]
    pod = {"spec": {}, "status": {"conditions": old}}
    made = status.pod_status(view([container(state=RUNNING, ready=True)], pod), NOW)
    times = {item["type"]: item["lastTransitionTime"] for item in made["conditions"]}
    assert times["Ready"] == "T0"
    assert times["ContainersReady"] == NOW
    assert times["example.com/gate"] == "T0"


def test_readiness_gate() -> None:
    """A gate holds the pod unready until its condition is true."""
    gates = [{"conditionType": "example.com/gate"}]
    pod: dict[str, Any] = {"spec": {"readinessGates": gates}}
    good = container(state=RUNNING, ready=True)
    assert conditions(status.pod_status(view([good], pod), NOW))["Ready"] == "False"
    pod["status"] = {
        "conditions": [{"type": "example.com/gate", "status": "True", "lastTransitionTime": "T0"}]
    }
    assert conditions(status.pod_status(view([good], pod), NOW))["Ready"] == "True"


def test_container_states() -> None:
    """Waiting, running and terminated are shown with what belongs to each."""
    waiting = container(reason="ErrImagePull", message="no image").as_status()
    assert waiting["state"] == {"waiting": {"reason": "ErrImagePull", "message": "no image"}}
    running = container(state=RUNNING, started_at=NOW, container_id="u.c.0").as_status()
    assert running["state"] == {"running": {"startedAt": NOW}}
    assert running["containerID"] == "isthmus://u.c.0"
    gone = ended(3).as_status()["state"]["terminated"]
    assert (gone["exitCode"], gone["reason"]) == (3, "Error")
