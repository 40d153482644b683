"""The kubelet with real processes, a real API server and a stub in place of the network plugin."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from kind.lab import host
from tests.support.lab import CHECKOUT, Json, Lab, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

WORKER = "cluster1-worker"
PATIENCE_S = 20  # of probes: a busy machine stands still for seconds


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"p{uuid.uuid4().hex[:8]}"


def pod(name: str, *containers: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "nodeName": WORKER,
            "terminationGracePeriodSeconds": 2,
            "containers": list(containers),
            **spec,
        },
    }


def shell(script: str, **fields: Any) -> Json:
    return {"name": "c", "image": "busybox", "command": ["sh", "-c", script], **fields}


def config_map(name: str, **data: str) -> Json:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def status_of(lab: Lab, name: str) -> Json:
    value: Json = lab.get("pod", name).get("status") or {}
    return value


def container_status(lab: Lab, name: str) -> Json:
    listed = status_of(lab, name).get("containerStatuses") or [{}]
    return listed[0]


def test_pod_runs_and_goes(bare_lab: Lab, name: str) -> None:
    """A pod gets an address by CNI ADD, answers, and leaves no namespace and no files."""
    bare_lab.apply(
        pod(
            name,
            {
                "name": "web",
                "image": "docker.io/nginx:1.15.8",
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
            },
        )
    )
    bare_lab.wait_ready(name)
    item = bare_lab.get("pod", name)
    address, uid = item["status"]["podIP"], item["metadata"]["uid"]
    assert address.startswith("10.1.2.")
    code, output = bare_lab.exec(WORKER, "curl", "-sS", f"http://{address}/")
    assert (code, "Welcome" in output) == (0, True)
    netns = Path(f"/run/netns/ist-{bare_lab.name}-p-{uid.replace('-', '')}")
    assert netns.exists()
    calls = (bare_lab.node(WORKER).root / "run/cni-stub.log").read_text()
    assert f"ADD {uid.replace('-', '')} {netns} eth0 " in calls
    assert f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};" in calls
    bare_lab.kubectl("delete", "pod", name)
    bare_lab.wait_gone(name)
    assert not netns.exists()
    # Its files go last, when the object is gone already.
    left = bare_lab.node(WORKER).directory / "kubelet/pods" / uid
    wait_until("its files are gone", lambda: not left.exists())
    calls = (bare_lab.node(WORKER).root / "run/cni-stub.log").read_text()
    assert f"DEL {uid.replace('-', '')} " in calls


def test_a_container_sees_what_it_should(bare_lab: Lab, name: str) -> None:
    """Environment, host name, hosts, resolv.conf, service account and own files."""
    env = [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    script = "echo mine >/etc/own; exec sleep infinity"
    aliases = [{"ip": "192.0.2.1", "hostnames": ["far.example"]}]
    bare_lab.apply(pod(name, shell(script, env=env), hostAliases=aliases))
    bare_lab.wait_ready(name)

    def run(command: str) -> str:
        code, output = bare_lab.exec(name, "sh", "-c", command)
        assert code == 0, output
        return output.strip()

    address = status_of(bare_lab, name)["podIP"]
    assert run("echo $NODE $IP") == f"{WORKER} {address}"
    assert run("hostname") == name
    assert "192.0.2.1\tfar.example" in run("cat /etc/hosts")
    assert "nameserver 10.101.0.10" in run("cat /etc/resolv.conf")
    assert run("cat /etc/own") == "mine"
    assert not Path("/etc/own").exists(), "a container must not write to the machine"
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert run(f"cat {account}/namespace") == "default"
    assert "BEGIN CERTIFICATE" in run(f"cat {account}/ca.crt")
    token = run(f"cat {account}/token")
    assert len(token) > 20
    # A checkout below /tmp is kept in sight; nothing else of the machine's is.
    kept = {p.parts[2] for p in (CHECKOUT, Path(sys.prefix)) if p.parts[1] == "tmp"}
    assert set(run("ls -A /tmp").split()) == kept, "the machine's own /tmp must not be seen"
    assert run("ls -A /run").split() == ["secrets"], "the machine's own /run must not be seen"
    assert "172.20." not in run("ip -br addr")


def test_config_map_changes_under_a_running_pod(bare_lab: Lab, name: str) -> None:
    """A changed ConfigMap reaches the files within a second, all keys at once."""
    bare_lab.apply(
        config_map(name, a="1", b="1"),
        pod(
            name,
            shell("exec sleep infinity", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "configMap": {"name": name}}],
        ),
    )
    bare_lab.wait_ready(name)
    uid = bare_lab.get("pod", name)["metadata"]["uid"]
    volume = bare_lab.node(WORKER).directory / "kubelet/pods" / uid / "volumes/v"
    assert (volume / "a").read_text() == "1"
    bare_lab.apply(config_map(name, a="2", c="2"))
    began = time.monotonic()
    # Where they are written: a command in the pod may take longer than they do.
    wait_until("the new files are there", lambda: (volume / "a").read_text() == "2")
    assert time.monotonic() - began < 10  # the promise is 1 s; a busy machine stands still for some
    seen = bare_lab.exec(name, "sh", "-c", "cd /v; echo * ; cat a")[1]
    assert seen.split() == ["a", "c", "2"]


def test_optional_secret_arrives_later(bare_lab: Lab, name: str) -> None:
    """A pod starts without its optional Secret and sees it when it is made."""
    volume = {"name": "v", "secret": {"secretName": name, "optional": True}}
    mount = {"name": "v", "mountPath": "/v", "readOnly": True}
    bare_lab.apply(pod(name, shell("exec sleep infinity", volumeMounts=[mount]), volumes=[volume]))
    bare_lab.wait_ready(name)
    assert bare_lab.exec(name, "ls", "/v") == (0, "")
    code, _ = bare_lab.exec(name, "touch", "/v/x")
    assert code != 0, "a read-only mount must refuse"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "stringData": {"key": "deep"},
    }
    bare_lab.apply(secret)
    wait_until("the file is there", lambda: bare_lab.exec(name, "cat", "/v/key")[1] == "deep")


def test_missing_config_map_is_said_and_mended(bare_lab: Lab, name: str) -> None:
    """A pod whose ConfigMap is missing waits, says which, and starts when it is made."""
    volume = {"name": "v", "configMap": {"name": name}}
    bare_lab.apply(pod(name, shell("exec sleep infinity"), volumes=[volume]))
    wait_until(
        "the status names it",
        lambda: f'configmap "{name}" not found' in str(status_of(bare_lab, name)),
    )
    bare_lab.apply(config_map(name, a="1"))
    bare_lab.wait_ready(name)
    assert "not found" not in json.dumps(status_of(bare_lab, name))


def test_a_lost_config_map_does_not_stop_a_pod(bare_lab: Lab, name: str) -> None:
    """A running pod keeps the files of a ConfigMap that was deleted, and is still restarted."""
    mount = {"name": "v", "mountPath": "/v"}
    volume = {"name": "v", "configMap": {"name": name}}
    script = "test -e /tmp/once; exec sleep infinity"
    bare_lab.apply(
        config_map(name, a="1"),
        pod(name, shell(script, volumeMounts=[mount]), volumes=[volume]),
    )
    bare_lab.wait_ready(name)
    bare_lab.kubectl("delete", "configmap", name)
    other = config_map(f"{name}-other", a="1")  # its arrival shows that the deletion has arrived
    bare_lab.apply(
        other,
        pod(
            f"{name}-o",
            shell("exec sleep infinity"),
            volumes=[{"name": "v", "configMap": {"name": f"{name}-other"}}],
        ),
    )
    bare_lab.wait_ready(f"{name}-o")
    assert bare_lab.pod_ready(name)
    uid = bare_lab.get("pod", name)["metadata"]["uid"]
    procs = host.cgroup_of(bare_lab.name) / WORKER / "pods" / uid / "c.0/cgroup.procs"
    os.kill(int(procs.read_text().split()[0]), signal.SIGKILL)
    wait_until("restarted", lambda: container_status(bare_lab, name)["restartCount"] == 1)
    bare_lab.wait_ready(name)
    assert bare_lab.exec(name, "cat", "/v/a")[1] == "1"


def test_unknown_image(bare_lab: Lab, name: str) -> None:
    """An image that the lab cannot run is refused with what to do, not retried in silence."""
    bare_lab.apply(pod(name, {"name": "c", "image": "example.com/unknown:1"}))

    def waiting() -> Json:
        value: Json = container_status(bare_lab, name).get("state", {}).get("waiting", {})
        return value

    said = wait_until("reason", lambda: (w := waiting()).get("reason") == "ErrImagePull" and w)
    assert "example.com/unknown:1" in said["message"]
    assert "command" in said["message"]


def test_executable_not_found(bare_lab: Lab, name: str) -> None:
    """A command that does not exist ends the container with a message that names it."""
    bare_lab.apply(
        pod(name, {"name": "c", "image": "x", "command": ["/no/such"]}, restartPolicy="Never")
    )
    failed = wait_until(
        "failed", lambda: (s := status_of(bare_lab, name)).get("phase") == "Failed" and s
    )
    ended = failed["containerStatuses"][0]["state"]["terminated"]
    assert ended["reason"] == "StartError"
    assert "/no/such" in ended["message"]


def test_init_containers_run_in_order(bare_lab: Lab, name: str) -> None:
    """Each runs to its end before the next, and all before the main container."""
    mounts = [{"name": "d", "mountPath": "/d"}]
    inits = [
        {**shell(f"sleep 0.2; echo {n} >>/d/order", volumeMounts=mounts), "name": n}
        for n in ("one", "two")
    ]
    main = shell("cat /d/order; exec sleep infinity", volumeMounts=mounts)
    bare_lab.apply(pod(name, main, initContainers=inits, volumes=[{"name": "d", "emptyDir": {}}]))
    bare_lab.wait_ready(name)
    wait_until(
        "what it read", lambda: bare_lab.kubectl("logs", name, "-c", "c").split() == ["one", "two"]
    )
    inits_shown = status_of(bare_lab, name)["initContainerStatuses"]
    assert [c["state"]["terminated"]["reason"] for c in inits_shown] == ["Completed"] * 2


def test_restart_and_previous_log(bare_lab: Lab, name: str) -> None:
    """A failing container is started again with a pause; its last run's log can be read."""
    bare_lab.apply(pod(name, shell("date +%s%N; exit 3")))
    wait_until("restarts", lambda: container_status(bare_lab, name).get("restartCount", 0) >= 2)
    last = container_status(bare_lab, name)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    wait_until(
        "back-off is shown",
        lambda: "CrashLoopBackOff" in json.dumps(container_status(bare_lab, name)),
    )

    def logs() -> tuple[str, str] | None:
        """Of the last run and of the one before; none while one has not said anything yet."""
        now, before = bare_lab.kubectl("logs", name), bare_lab.kubectl("logs", "-p", name)
        return (now, before) if now and before else None

    now, before = wait_until("both logs", logs)
    assert int(before) < int(now) or now == before


def test_run_once(bare_lab: Lab, name: str) -> None:
    """restartPolicy Never: the pod succeeds and keeps its log."""
    bare_lab.apply(pod(name, shell("echo done"), restartPolicy="Never"))
    wait_until("succeeded", lambda: status_of(bare_lab, name).get("phase") == "Succeeded")
    wait_until("its log", lambda: bare_lab.kubectl("logs", name) == "done\n")


def test_readiness_follows_its_probe(bare_lab: Lab, name: str) -> None:
    """Ready while the probe succeeds, not while it fails, without a restart."""
    probe = {
        "exec": {"command": ["test", "-e", "/tmp/ok"]},
        "periodSeconds": 1,
        "timeoutSeconds": PATIENCE_S,
        "failureThreshold": 1,
    }
    bare_lab.apply(pod(name, shell("exec sleep infinity", readinessProbe=probe)))
    wait_until("running", lambda: "running" in container_status(bare_lab, name).get("state", {}))
    assert not bare_lab.pod_ready(name)
    bare_lab.exec(name, "touch", "/tmp/ok")
    bare_lab.wait_ready(name)
    bare_lab.exec(name, "rm", "/tmp/ok")
    wait_until("not ready", lambda: not bare_lab.pod_ready(name))
    assert container_status(bare_lab, name)["restartCount"] == 0


def test_liveness_restarts(bare_lab: Lab, name: str) -> None:
    """A failing liveness probe restarts the container."""
    probe = {
        "exec": {"command": ["test", "!", "-e", "/tmp/sick"]},
        "periodSeconds": 1,
        "timeoutSeconds": PATIENCE_S,
        "failureThreshold": 1,
    }
    bare_lab.apply(pod(name, shell("exec sleep infinity", livenessProbe=probe)))
    bare_lab.wait_ready(name)
    bare_lab.exec(name, "touch", "/tmp/sick")
    wait_until("restarted", lambda: container_status(bare_lab, name)["restartCount"] == 1)
    bare_lab.wait_ready(name)


def test_startup_probe_holds_the_others_back(bare_lab: Lab, name: str) -> None:
    """Liveness does not count before the startup probe has succeeded."""
    startup = {
        "exec": {"command": ["test", "-e", "/tmp/up"]},
        "periodSeconds": 1,
        "timeoutSeconds": PATIENCE_S,
        "failureThreshold": 600,
    }
    live = {
        "exec": {"command": ["test", "-e", "/tmp/up"]},
        "periodSeconds": 1,
        "timeoutSeconds": PATIENCE_S,
        "failureThreshold": 1,
    }
    script = "exec sleep infinity"
    bare_lab.apply(pod(name, shell(script, startupProbe=startup, livenessProbe=live)))
    wait_until("running", lambda: "running" in container_status(bare_lab, name).get("state", {}))
    time.sleep(2.5)  # longer than liveness would take to fail
    assert container_status(bare_lab, name)["started"] is False
    assert bare_lab.exec(name, "touch", "/tmp/up")[0] == 0
    bare_lab.wait_ready(name)
    shown = container_status(bare_lab, name)
    assert (shown["started"], shown["restartCount"]) == (True, 0)


@pytest.mark.parametrize(
    ("script", "expected", "grace_s"),
    [
        ("trap 'echo bye >/out/how; exit 0' TERM", "bye", 60),
        ("trap '' TERM; echo deaf >/out/how", "deaf", 2),
    ],
    ids=["graceful", "killed"],
)
def test_termination(bare_lab: Lab, name: str, script: str, expected: str, grace_s: int) -> None:
    """SIGTERM first; what does not listen is killed when its grace is over."""
    path = f"/run/out-{name}"
    volume = {"name": "out", "hostPath": {"path": path}}
    mount = {"name": "out", "mountPath": "/out"}
    script += "; touch /out/up; while :; do sleep 0.05; done"
    body = pod(name, shell(script, volumeMounts=[mount]), volumes=[volume])
    body["spec"]["terminationGracePeriodSeconds"] = grace_s
    # The host path is the node's and not the machine's.
    out = bare_lab.node(WORKER).root / path.removeprefix("/")
    bare_lab.apply(body)
    bare_lab.wait_ready(name)
    wait_until("it has said what it does at its end", (out / "up").exists)
    began = time.monotonic()
    bare_lab.kubectl("delete", "pod", name)
    bare_lab.wait_gone(name)
    took_s = time.monotonic() - began
    assert (out / "how").read_text().strip() == expected
    assert not Path(path).exists()
    assert (took_s >= grace_s) == (expected == "deaf")


def test_a_new_kubelet_adopts_the_pods(bare_lab: Lab, name: str) -> None:
    """A kubelet killed with -9 and started again keeps the process, its readiness and its log."""
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1, "timeoutSeconds": PATIENCE_S}
    bare_lab.apply(pod(name, {"name": "c", "image": "nginx", "readinessProbe": probe}))
    bare_lab.wait_ready(name)
    before = container_status(bare_lab, name)
    watched = subprocess.Popen(
        [
            "kubectl",
            "--context",
            "cluster1",
            "get",
            "pod",
            name,
            "-w",
            "-o",
            "jsonpath={.status.containerStatuses[0].ready} ",
        ],
        env=bare_lab.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watched.stdout is not None
        assert watched.stdout.read(len("true ")) == "true ", "it watches before anything happens"
        rows = {(r["node"], r["name"]): r for r in bare_lab.status()["processes"]}
        os.kill(rows[(WORKER, "kubelet")]["pid"], signal.SIGKILL)
        bare_lab.get("pod", name)  # the API server goes on
        marker = f"{name}-after"
        bare_lab.apply(pod(marker, shell("exec sleep infinity")))
        bare_lab.wait_ready(marker)  # the new kubelet works
        after = container_status(bare_lab, name)
        assert after["containerID"] == before["containerID"]
        assert (after["ready"], after["restartCount"]) == (True, 0)
    finally:
        watched.terminate()
        seen = watched.communicate()[0].split()
    assert set(seen) <= {"true"}, f"readiness must not flap: {seen}"
    bare_lab.kubectl("delete", "pod", name)
    bare_lab.wait_gone(name)


def test_deletion_while_the_kubelet_is_away(bare_lab: Lab, name: str) -> None:
    """What was deleted by force during a restart of the kubelet is ended by the next one."""
    bare_lab.apply(pod(name, shell("exec sleep infinity")))
    bare_lab.wait_ready(name)
    uid = bare_lab.get("pod", name)["metadata"]["uid"]
    rows = {(r["node"], r["name"]): r for r in bare_lab.status()["processes"]}
    os.kill(rows[(WORKER, "kubelet")]["pid"], signal.SIGKILL)
    bare_lab.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    netns = Path(f"/run/netns/ist-{bare_lab.name}-p-{uid.replace('-', '')}")
    cgroup = host.cgroup_of(bare_lab.name) / WORKER / "pods" / uid
    wait_until(
        "its namespace and processes are gone", lambda: not netns.exists() and not cgroup.exists()
    )


def test_network_plugin_failure(bare_lab: Lab, name: str) -> None:
    """A failing ADD is shown with the plugin's own words and tried again after a DEL."""
    switch = bare_lab.node(WORKER).root / "run/cni-stub.fail"
    switch.touch()
    try:
        bare_lab.apply(pod(name, shell("exec sleep infinity")))
        wait_until(
            "the status says it",
            lambda: "told to fail: by the test" in json.dumps(status_of(bare_lab, name)),
        )
    finally:
        switch.unlink()
    bare_lab.wait_ready(name)
    uid = bare_lab.get("pod", name)["metadata"]["uid"].replace("-", "")
    calls = (bare_lab.node(WORKER).root / "run/cni-stub.log").read_text()
    verbs = [line.split()[0] for line in calls.splitlines() if f" {uid} " in line]
    assert verbs[:3] == ["ADD", "DEL", "ADD"]
    assert verbs[-1] == "ADD"


def test_host_network(bare_lab: Lab, name: str) -> None:
    """A hostNetwork pod has the node's address and no CNI call, and finds the API by the node."""
    bare_lab.apply(pod(name, shell("exec sleep infinity"), hostNetwork=True))
    bare_lab.wait_ready(name)
    assert status_of(bare_lab, name)["podIP"] == "172.20.1.2"
    code, output = bare_lab.exec(name, "sh", "-c", "hostname; echo $KUBERNETES_SERVICE_HOST")
    assert (code, output.split()) == (0, [WORKER, "172.20.1.1"])
    calls = (bare_lab.node(WORKER).root / "run/cni-stub.log").read_text()
    assert f"K8S_POD_NAME={name};" not in calls


def test_bpffs_belongs_to_the_node(bare_lab: Lab, name: str) -> None:
    """/sys/fs/bpf of a node survives its pods and is not the machine's."""
    mount = {"name": "b", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"}
    volume = {"name": "b", "hostPath": {"path": "/sys/fs/bpf"}}
    script = f"mkdir /sys/fs/bpf/{name}; exec sleep infinity"
    bare_lab.apply(pod(name, shell(script, volumeMounts=[mount]), volumes=[volume]))
    bare_lab.wait_ready(name)
    code, output = bare_lab.exec(name, "stat", "-f", "-c", "%T", "/sys/fs/bpf")
    assert (code, output.strip()) == (0, "bpf_fs")
    made = bare_lab.node(WORKER).root / "sys/fs/bpf" / name
    wait_until("it has made its directory", made.is_dir)
    bare_lab.kubectl("delete", "pod", name)
    bare_lab.wait_gone(name)
    assert made.is_dir()
    assert not Path("/sys/fs/bpf", name).exists()


def test_kubectl_exec_and_logs(bare_lab: Lab, name: str) -> None:
    """kubectl's own exec carries input, both outputs and the exit code; logs can be followed."""
    bare_lab.apply(pod(name, shell("echo first; sleep 1; echo second")))
    # It is Ready for a second at a time only.
    wait_until("it has begun", lambda: container_status(bare_lab, name).get("containerID"))
    followed = bare_lab.kubectl("logs", "-f", name)
    assert followed.split() == ["first", "second"]
    wait_until("restarted", lambda: container_status(bare_lab, name)["restartCount"] >= 1)
    assert bare_lab.kubectl("logs", "--tail=1", "-p", name).split() == ["second"]
    other = f"{name}-x"
    bare_lab.apply(pod(other, shell("exec sleep infinity")))
    bare_lab.wait_ready(other)
    done = subprocess.run(
        [
            "kubectl",
            "--context",
            "cluster1",
            "exec",
            "-i",
            other,
            "--",
            "sh",
            "-c",
            "cat; echo err >&2; exit 7",
        ],
        env=bare_lab.env,
        input="given",
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if "WebSocket" in done.stderr:
        # kubectl before 1.30 speaks SPDY only: the answer must say what to use instead.
        assert "isthmus lab exec" in done.stderr
        return
    assert (done.returncode, done.stdout) == (7, "given")
    assert "err" in done.stderr


def test_lab_exec(bare_lab: Lab, name: str) -> None:
    """``isthmus lab exec`` finds a pod by the beginning of its name, or says what there is."""
    bare_lab.apply(pod(name, shell("exec sleep infinity")))
    bare_lab.wait_ready(name)
    assert bare_lab.exec(name[:7], "sh", "-c", "exit 9")[0] == 9
    assert bare_lab.exec(f"default/{name}", "true")[0] == 0
    assert bare_lab.exec(f"cluster1/{name}", "true")[0] == 0
    code, output = bare_lab.exec("nothing-like-it", "true")
    assert code == 1
    assert "nothing-like-it" in output
    assert name in output
    code, output = bare_lab.exec(name, "/no/such/thing")
    assert code == 1
    assert output.startswith("Error: ")
    assert "/no/such/thing" in output
    assert bare_lab.exec(WORKER, "cat", "/etc/hostname")[1].strip() == WORKER
