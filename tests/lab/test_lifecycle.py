"""``isthmus lab up`` and ``down``: what they leave behind, and what they say."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from kind.lab import host, topology
from kind.runtime import namespaces
from tests.support import lab as labs
from tests.support.lab import Lab, lab_command, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]


def root_network() -> tuple[str, str, str]:
    """Links, addresses and routes of the root namespace, without their changing counters."""
    shown = []
    for what in ("link", "address", "route"):
        done = subprocess.run(
            ["ip", "-json", what, "show"], capture_output=True, text=True, check=True
        )
        rows = json.loads(done.stdout)
        keys = ("ifname", "address", "addr_info", "dst", "gateway", "dev", "ifindex")
        shown.append(json.dumps([{k: r.get(k) for k in keys if k != "addr_info"} for r in rows]))
    return shown[0], shown[1], shown[2]


def mentions(name: str) -> list[str]:
    """Everything of a lab that is in the system."""
    found = [str(path) for path in Path("/run/netns").glob(f"ist-{name}-*")]
    found += [str(path) for path in topology.LABS_DIRECTORY.glob(f"{name}*")]
    found += namespaces.mounts_below(str(topology.LABS_DIRECTORY / name))
    found += [str(path) for path in Path(host.cgroup_mount()).glob(f"isthmus-{name}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"/{name}/".encode() in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found


@pytest.fixture
def small_lab() -> "Lab":
    """A lab of one cluster with one node, for tests that break it."""
    made = labs.start("x", "--no-install", clusters=1, nodes=1)
    yield made
    lab_command("down", made.name)


def test_up_and_down_leave_nothing() -> None:
    """After ``down`` no process, namespace, mount, cgroup or file is left, and the root network
    namespace is the same before, during and after; the underlay has the MTU that was asked for."""
    before = root_network()
    lab = labs.start("u", "--no-install", clusters=2, nodes=1, mtu=1400)
    try:
        assert root_network() == before
        code, output = lab.exec("cluster1-control-plane", "ip", "link", "show", "eth0")
        assert (code, "mtu 1400" in output) == (0, True), output
        api = ("curl", "-sk", "-m20", "https://172.20.2.1:6443/livez")
        assert lab.exec("cluster1-control-plane", *api)[0] == 0, "clusters reach each other"
        assert "kube-system" in lab.kubectl("get", "namespaces", cluster="cluster2")
    finally:
        labs.stop(lab)
    assert mentions(lab.name) == []
    assert root_network() == before
    again = lab_command("down", lab.name)
    assert again.returncode == 0
    assert "nothing to remove" in again.stdout


def test_down_after_a_crash_of_everything(small_lab: Lab) -> None:
    """With every process of the lab killed, ``down`` still removes all of it."""
    for pid in host.processes_of(small_lab.name):
        os.kill(pid, signal.SIGKILL)
    wait_until("processes are gone", lambda: not host.processes_of(small_lab.name))
    assert lab_command("down", small_lab.name).returncode == 0
    assert mentions(small_lab.name) == []


def test_second_owner_is_told(small_lab: Lab) -> None:
    """``up`` under a name that is taken says by whom and how to remove it, and changes nothing."""
    processes = host.processes_of(small_lab.name)
    done = lab_command("up", small_lab.name, "--no-install")
    assert done.returncode == 1
    assert f"isthmus lab down {small_lab.name}" in done.stderr
    assert "started 20" in done.stderr
    assert " by " in done.stderr
    assert host.processes_of(small_lab.name) == processes


def test_half_made_lab_is_recognised() -> None:
    """Remains without a record are named with the remedy, and ``down`` removes them."""
    name = f"t{os.getpid()}h"
    subprocess.run(["ip", "netns", "add", f"ist-{name}-cluster1-worker"], check=True)
    try:
        for command in (["up", name, "--no-install"], ["status", name]):
            done = lab_command(*command)
            assert done.returncode == 1
            assert f"isthmus lab down {name}" in done.stderr
    finally:
        assert lab_command("down", name).returncode == 0
    assert mentions(name) == []


def test_interrupted_up_cleans_up() -> None:
    """^C while a lab starts removes what was begun."""
    name = f"t{os.getpid()}i"
    process = subprocess.Popen(
        [*labs.CLI, "up", name, "--clusters=1", "--nodes=1"],
        cwd=labs.CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # Whoever runs us in a shell's background has it ignored, and so would the process.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until("it has begun", lambda: host.processes_of(name), timeout_s=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) != 0
    finally:
        process.kill()
        lab_command("down", name)
    assert mentions(name) == []


def test_neighbours_survive_down(small_lab: Lab) -> None:
    """Removing a lab leaves namespaces of others alone, also those made while it was up."""
    other = f"ist-t-{os.getpid()}-neighbour"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        code, output = small_lab.exec("cluster1-control-plane", "ls", "/run/netns")
        assert code == 0
        assert other in output, "a new namespace must appear on the node"
        assert lab_command("down", small_lab.name).returncode == 0
        subprocess.run(["ip", "netns", "exec", other, "true"], check=True)
    finally:
        subprocess.run(["ip", "netns", "del", other], check=True)


def test_killed_services_come_back(small_lab: Lab) -> None:
    """etcd, API server and kubelet killed at once run again, and what was stored is there."""
    small_lab.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kept", "namespace": "default"},
            "data": {"k": "v"},
        }
    )
    before = {row["name"]: row["pid"] for row in small_lab.status()["processes"]}
    killed = ("etcd", "kube-apiserver", "kubelet")
    for name in killed:
        os.kill(before[name], signal.SIGKILL)

    def back() -> bool:
        rows = {row["name"]: row for row in small_lab.status()["processes"]}
        return all(
            name in rows and rows[name]["state"] == "running" and rows[name]["pid"] != before[name]
            for name in killed
        )

    wait_until("services run again", back)

    def answers() -> bool:
        done = subprocess.run(
            ["kubectl", "--context", "cluster1", "get", "configmap", "kept", "-o", "name"],
            env=small_lab.env,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() == "configmap/kept"

    wait_until("the object is there", answers)


def test_killed_runtime_is_replaced(small_lab: Lab) -> None:
    """A killed runtime is started again by the kubelet and finds the services it had started."""
    node = small_lab.node("cluster1-control-plane")
    before = {row["name"]: row["pid"] for row in small_lab.status()["processes"]}
    runtime = host.cgroup_of(small_lab.name) / node.name / "system/runtime/cgroup.procs"
    os.kill(int(runtime.read_text().split()[0]), signal.SIGKILL)

    def same() -> bool:
        rows = {row["name"]: row["pid"] for row in small_lab.status()["processes"]}
        return rows == before

    wait_until("the new runtime knows the same processes", same)


def test_bad_requests_make_nothing() -> None:
    """A name or size that does not work is refused in one line before anything is made."""
    for arguments in (["Lab!"], ["x", "--nodes=0"], ["x", "--kube-assets=/nonexistent"]):
        done = lab_command("up", *arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.strip().splitlines()) == 1
    assert mentions("x") == []


def test_status_tells_the_truth(small_lab: Lab) -> None:
    """A lab whose node is not Ready is unhealthy: exit code 1 and the reason."""
    done = lab_command("status", small_lab.name, "-o", "json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["healthy"] is False
    assert any("cluster1-control-plane is not Ready" in line for line in report["problems"])
    shown = lab_command("status", small_lab.name)
    assert "NOT healthy" in shown.stdout
    assert lab_command("status", "no-such-lab").returncode == 1


def test_runtime_needs_the_standard_library_only() -> None:
    """The runtime starts without site-packages: it is forked from for every container."""
    script = (
        "import sys; sys.path.insert(0, '.'); import kind.runtime.server; "
        "assert not any('site-packages' in (getattr(m, '__file__', '') or '') "
        "for m in sys.modules.values())"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=labs.CHECKOUT, check=True)
