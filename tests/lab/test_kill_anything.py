"""kill -9 of any process of a lab at any moment: what runs goes on, what was asked happens."""

import os
import random
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from kind.lab import host
from tests.support.lab import Json, Lab, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(600),
]

REPLICAS = 12
KILLS = 14
SERVICES = ("etcd", "kube-apiserver", "kube-controllers", "kubelet", "runtime")
SETTLE_S = 180.0


def deployment(name: str, replicas: int) -> Json:
    labels = {"app": name}
    container = {
        "name": "c",
        "image": "json-mock",
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def try_kubectl(lab: Lab, *arguments: str, stdin: str = "") -> str:
    """kubectl that may fail, because its API server may be away; empty then."""
    done = subprocess.run(
        ["kubectl", "--context", "cluster1", "--request-timeout=10s", *arguments],
        env=lab.env,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def kill_one(lab: Lab, dice: random.Random) -> str:
    """Kill a service of a node at random; returns what."""
    node = dice.choice(lab.topology.nodes)
    service = dice.choice(SERVICES)
    procs = host.cgroup_of(lab.name) / node.name / "system" / service / "cgroup.procs"
    try:
        pids = procs.read_text().split()
    except OSError:
        return ""
    for pid in pids[:1]:
        os.kill(int(pid), signal.SIGKILL)
    return f"{node.name}/{service}" if pids else ""


def ready_pods(lab: Lab, name: str) -> list[str]:
    output = try_kubectl(
        lab,
        "get",
        "pods",
        "-l",
        f"app={name}",
        "-o",
        'jsonpath={range .items[*]}{.metadata.uid} {.status.conditions[?(@.type=="Ready")].status}'
        '{"\\n"}{end}',
    )
    return [line.split()[0] for line in output.splitlines() if line.endswith(" True")]


def ready(lab: Lab, name: str, number: int, what: str) -> list[str]:
    """The Ready ones, once there are so many; of one answer, as an API server may be away."""
    found: list[str] = wait_until(
        what, lambda: len(uids := ready_pods(lab, name)) == number and uids, SETTLE_S
    )
    return found


def strays(lab: Lab) -> set[str] | None:
    """Uids without a pod whose network namespace is still there; None while nobody can tell."""
    prefix = f"ist-{lab.name}-p-"
    present = {p.name.removeprefix(prefix) for p in Path("/run/netns").glob(f"{prefix}*")}
    known = try_kubectl(lab, "get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}")
    return present - set(known.replace("-", "").split()) if known else None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_arrives_in_spite_of_kills(bare_lab: Lab, seed: int) -> None:
    """While processes are killed at random a deployment is made, scaled and deleted: it reaches its
    number, running pods keep their processes, and at the end no namespace or cgroup is left."""
    dice = random.Random(seed)
    name = f"k{uuid.uuid4().hex[:8]}"
    bare_lab.apply(deployment(name, REPLICAS // 2))
    steady = set(ready(bare_lab, name, REPLICAS // 2, "first pods"))
    killed = []
    wait_until(
        "the scale is accepted",
        lambda: try_kubectl(bare_lab, "scale", "deployment", name, f"--replicas={REPLICAS}"),
    )
    for _ in range(KILLS):
        killed.append(kill_one(bare_lab, dice))
        time.sleep(dice.uniform(0.05, 0.4))  # the moment of the next kill, from the seed
    present = set(ready(bare_lab, name, REPLICAS, f"{REPLICAS} pods after kills of {killed}"))
    assert steady <= present, "pods that ran must not be replaced"
    counts = "jsonpath={.items[*].status.containerStatuses[0].restartCount}"
    restarts = wait_until(
        "restarts are told",
        lambda: try_kubectl(bare_lab, "get", "pods", "-l", f"app={name}", "-o", counts),
        SETTLE_S,
    )
    assert set(restarts.split()) == {"0"}, f"no container may restart: {restarts} after {killed}"
    wait_until(
        "the deletion is accepted",
        lambda: try_kubectl(bare_lab, "delete", "deployment", name, "--wait=false"),
    )
    for _ in range(KILLS // 2):
        killed.append(kill_one(bare_lab, dice))
        time.sleep(dice.uniform(0.05, 0.4))
    wait_until(
        f"no namespace is left after kills of {killed}",
        lambda: strays(bare_lab) == set() and not ready_pods(bare_lab, name),
        SETTLE_S,
    )
    for node in bare_lab.topology.nodes:
        pods = host.cgroup_of(bare_lab.name) / node.name / "pods"

        def nothing_left(pods: Path = pods) -> bool:
            left = {path.parent.parent.name for path in pods.glob("*-*/*/cgroup.procs")}
            wanted = try_kubectl(
                bare_lab, "get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}"
            )
            return left <= set(wanted.split())

        wait_until(f"no cgroup of a pod that is no more on {node.name}", nothing_left)
