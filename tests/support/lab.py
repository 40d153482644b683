"""Labs for tests: started and removed through the command line that people use.

Names carry the test process's id, so that several runs on one machine do not meet.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kind.lab import topology
from kind.lab.topology import Node, Topology

CHECKOUT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-c", "from kind.commands import lab; lab(prog_name='isthmus lab')"]
UP_TIMEOUT_S = 300.0
Json = dict[str, Any]


def lab_command(
    *arguments: str, timeout_s: float = UP_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run ``isthmus lab …``; the caller judges the exit code."""
    return subprocess.run(
        [*CLI, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def wait_until(
    what: str, look: Callable[[], object], timeout_s: float = 90.0, pause_s: float = 0.05
) -> Any:
    """Look again until the answer is true; returns it. Raises AssertionError with the last one.

    Rests as long as a look takes, at least: many start a process, and what is waited for needs the
    machine, too. A look that asserts something in vain has not found it yet.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        begun, failure = time.monotonic(), None
        try:
            answer = look()
        except AssertionError as error:
            answer, failure = error, error
        else:
            if answer:
                return answer
        if time.monotonic() > deadline:
            text = f"waited {timeout_s:g} s for: {what}; last answer: {answer!r}"
            raise AssertionError(text) from failure
        time.sleep(max(pause_s, time.monotonic() - begun))


@dataclass(frozen=True)
class Lab:
    """A running lab."""

    name: str
    topology: Topology
    encrypts: bool = False  # since it was installed

    @property
    def kubeconfig(self) -> Path:
        """Its kubeconfig file; contexts cluster1, cluster2."""
        return self.topology.kubeconfig

    @property
    def env(self) -> dict[str, str]:
        """An environment in which kubectl and isthmus speak to this lab."""
        return os.environ | {"KUBECONFIG": str(self.kubeconfig)}

    def node(self, name: str) -> Node:
        """A node by name."""
        return next(node for node in self.topology.nodes if node.name == name)

    def kubectl(
        self, *arguments: str, cluster: str = "cluster1", stdin: str = "", timeout_s: float = 120.0
    ) -> str:
        """Run kubectl against a cluster; returns its output. Raises AssertionError."""
        done = subprocess.run(
            ["kubectl", "--context", cluster, *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def apply(self, *objects: Json, cluster: str = "cluster1") -> None:
        """Apply objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", cluster=cluster, stdin=json.dumps(listed))

    def get(self, *arguments: str, cluster: str = "cluster1") -> Json:
        """An object or a list of them."""
        value: Json = json.loads(self.kubectl("get", *arguments, "-o", "json", cluster=cluster))
        return value

    def pod_ready(self, name: str, namespace: str = "default", cluster: str = "cluster1") -> bool:
        """True when a pod is Ready."""
        listing = self.get(
            "pods", "-n", namespace, f"--field-selector=metadata.name={name}", cluster=cluster
        )
        return any(
            c["type"] == "Ready" and c["status"] == "True"
            for item in listing["items"]
            for c in (item.get("status") or {}).get("conditions") or []
        )

    def wait_ready(
        self, *names: str, namespace: str = "default", cluster: str = "cluster1"
    ) -> None:
        """Wait until pods are Ready."""
        for name in names:
            wait_until(f"pod {name} is Ready", lambda n=name: self.pod_ready(n, namespace, cluster))

    def wait_gone(self, name: str, namespace: str = "default", cluster: str = "cluster1") -> None:
        """Wait until a pod is no more."""
        selector = f"--field-selector=metadata.name={name}"
        wait_until(
            f"pod {name} is gone",
            lambda: not self.get("pods", "-n", namespace, selector, cluster=cluster)["items"],
        )

    def exec(self, target: str, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """``isthmus lab exec``: exit code and both outputs."""
        done = lab_command("exec", "--lab", self.name, *options, target, "--", *command)
        return done.returncode, done.stdout + done.stderr

    def logs(self, target: str) -> str:
        """``isthmus lab logs`` of a pod or NODE/SERVICE."""
        return lab_command("logs", "--lab", self.name, target).stdout

    def status(self) -> Json:
        """``isthmus lab status -o json``."""
        value: Json = json.loads(lab_command("status", self.name, "-o", "json").stdout)
        return value

    def diagnostics(self) -> str:
        """What a person would look at first, as one text; never raises."""
        parts = [lab_command("status", self.name).stdout]
        for node in self.topology.nodes:
            parts += [
                f"== {node.name}: {path.relative_to(node.directory)}\n{_tail(path)}"
                for path in sorted(node.directory.glob("logs/**/*.log"))
            ]
            for command in (
                ["ip", "-br", "addr"],
                ["ip", "route"],
                ["isthmus", "status"],
                [
                    "sh",
                    "-c",
                    "for k in ipcache lb ct endpoint metrics; do isthmus bpf $k list; done",
                ],
            ):
                code, output = self.exec(node.name, *command)
                parts.append(f"== {node.name}: {' '.join(command)} ({code})\n{output[-8000:]}")
        return "\n".join(parts)


RUNNING: list[Lab] = []  # of this process


def _tail(path: Path, size: int = 6000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")


def start(suffix: str, *options: str, clusters: int = 2, nodes: int = 2, mtu: int = 1500) -> Lab:
    """Start a lab of its own name. Raises AssertionError with what ``up`` said and the logs."""
    name = f"t{os.getpid()}{suffix}"
    both = any(option.endswith("ipv6.enabled=true") for option in options)
    layout = topology.build(name, clusters, nodes, mtu, ipv6=both)
    encrypts = any("enable-wireguard=true" in o or "enable-ipsec=true" in o for o in options)
    lab = Lab(name, layout, encrypts)
    arguments = [f"--clusters={clusters}", f"--nodes={nodes}", f"--underlay-mtu={mtu}", *options]
    done = lab_command("up", name, *arguments)
    if done.returncode:
        text = f"{done.stdout}{done.stderr}\n{lab.diagnostics()}"
        stop(lab)
        raise AssertionError(f"lab up failed: {text}")
    RUNNING.append(lab)
    return lab


def stop(lab: Lab) -> None:
    """Remove a lab."""
    if lab in RUNNING:
        RUNNING.remove(lab)
    done = lab_command("down", lab.name)
    assert done.returncode == 0, done.stderr


# A CNI plugin for tests of the kubelet alone: one veth pair and host route per pod, addresses from
# the pod CIDR in the order of asking. It writes down what it was called with.
CNI_STUB = r"""#!/bin/sh
set -e
exec 3>>/run/cni-stub.log
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS" >&3
cat >/run/cni-stub.stdin
short=$(echo "$CNI_CONTAINERID" | cut -c1-10)
case "$CNI_COMMAND" in
ADD)
  if [ -e /run/cni-stub.fail ]; then
    echo '{"cniVersion":"1.0.0","code":11,"msg":"told to fail","details":"by the test"}'; exit 1
  fi
  n=2; mkdir -p /run/cni-stub
  until mkdir /run/cni-stub/$n 2>/dev/null; do n=$((n + 1)); done
  address=@PREFIX@.$n
  ip link add "stub$short" type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS"
  ip link set "stub$short" up
  ip route add $address/32 dev "stub$short"
  nsenter --net="$CNI_NETNS" sh -c "ip addr add $address/32 dev $CNI_IFNAME
    ip link set $CNI_IFNAME up; ip route add default dev $CNI_IFNAME"
  echo 1 >/proc/sys/net/ipv4/conf/stub$short/proxy_arp
  nsenter --net="$CNI_NETNS" sh -c "echo 1 >/proc/sys/net/ipv4/conf/$CNI_IFNAME/proxy_arp"
  echo "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"$address/32\"}]}" ;;
DEL) ip link del "stub$short" 2>/dev/null || true ;;
esac
"""


def install_stub(lab: Lab) -> None:
    """Put the stub plugin and its configuration onto every node."""
    for node in lab.topology.nodes:
        plugin = node.root / "opt/cni/bin/stub"
        prefix = str(node.pod_cidr.network_address).rpartition(".")[0]
        plugin.write_text(CNI_STUB.replace("@PREFIX@", prefix))
        plugin.chmod(0o755)
        configuration = {"cniVersion": "1.0.0", "name": "stub", "plugins": [{"type": "stub"}]}
        path = node.root / "etc/cni/net.d/10-stub.conflist"
        path.write_text(json.dumps(configuration))
