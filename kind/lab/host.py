"""The machine's side of a lab: namespaces, links, mounts, cgroups. Adapter.

Everything is found again by its name, so each function is safe to repeat and removal needs no
memory of creation.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kind.lab import topology
from kind.lab.topology import LabError, Node, Topology
from kind.runtime import namespaces

UNDERLAY_GATEWAY = "172.20.0.1"
UNDERLAY_GATEWAY6 = "fd00:172:20::1"
REMOVAL_TIMEOUT_S = 10.0


def cgroup_mount() -> str:
    """Where cgroup v2 is mounted. Raises LabError when it is nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return fields[1]
    raise LabError("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


def cgroup_of(lab: str) -> Path:
    """The cgroup below which every process of a lab lives."""
    return Path(cgroup_mount()) / f"{topology.CGROUP_PREFIX}{lab}"


def ip(*arguments: str, batch: Iterable[str] = ()) -> None:
    """Run iproute2; with ``batch`` its lines go in on standard input."""
    text = "".join(line + "\n" for line in batch)
    command = ["ip", *arguments, *(["-batch", "-"] if text else [])]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()}\n{text}".rstrip())


def inside(netns: str, action: Callable[[], None]) -> None:
    """Do something in a network namespace: in its own thread, as setns(2) is per thread."""

    def body() -> None:
        namespaces.enter(str(topology.NETNS_DIRECTORY / netns), namespaces.CLONE_NEWNET)
        action()

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(body).result()


def make_underlay(lab: Topology) -> None:
    """The namespaces of all nodes, and the bridge that joins them in a namespace of its own.

    The root namespace gets neither an address nor a route nor a link.
    """
    mtu = lab.underlay_mtu
    for name in (lab.underlay_netns, *(node.netns for node in lab.nodes)):
        ip("netns", "add", name)
    ip(
        "-n",
        lab.underlay_netns,
        batch=[
            "link set lo up",
            f"link add br0 mtu {mtu} type bridge forward_delay 0",
            f"addr add {UNDERLAY_GATEWAY}/16 dev br0",
            *([f"addr add {UNDERLAY_GATEWAY6}/64 dev br0 nodad"] if lab.ipv6 else []),
            "link set br0 up",
            *(
                f"link add {node.underlay_port} mtu {mtu} master br0"
                f" type veth peer name eth0 mtu {mtu} netns {node.netns}"
                for node in lab.nodes
            ),
            *(f"link set {node.underlay_port} up" for node in lab.nodes),
        ],
    )
    for node in lab.nodes:
        inside(node.netns, _node_sysctls)
        ip(
            "-n",
            node.netns,
            batch=[
                "link set lo up",
                f"addr add {node.address}/16 dev eth0",
                "link set eth0 up",
                f"route add default via {UNDERLAY_GATEWAY}",
                *_ipv6_of(node),
            ],
        )


def _ipv6_of(node: Node) -> list[str]:
    if node.address6 is None:
        return []
    return [
        f"addr add {node.address6}/64 dev eth0 nodad",
        f"route add default via {UNDERLAY_GATEWAY6}",
    ]


def _node_sysctls() -> None:
    settings = {"net/ipv4/ip_forward": "1"}
    # The strictest of "all" and the device's own counts, and the machine's defaults are inherited.
    settings |= {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", "default", "eth0")}
    # A node's addresses are its own at once: nobody else is on the underlay.
    settings["net/ipv6/conf/default/accept_dad"] = "0"
    # /proc/sys/net shows the namespace of the calling thread.
    for name, value in settings.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(value)


def make_directory(lab: Topology) -> None:
    """The lab's directory: one memory file system, so that one unmount removes all of it."""
    lab.directory.mkdir(parents=True, exist_ok=True)
    namespaces.mount("isthmus-lab", str(lab.directory), "tmpfs", data="mode=755,size=4g")
    # Nothing below is of interest to other mount namespaces of the machine.
    namespaces.mount("", str(lab.directory), flags=namespaces.MS_PRIVATE)


def make_root(node: Node, keep: list[str]) -> None:
    """The node's root file system: the host's, with a writable layer, own /run, /tmp and bpffs."""
    directory = node.directory
    for name in ("upper", "work", "root", "run", "tmp", "scratch", "containers", "kubelet"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "tmp").chmod(0o1777)
    layers = f"lowerdir=/,upperdir={directory}/upper,workdir={directory}/work"
    namespaces.mount("overlay", str(node.root), "overlay", data=layers)

    def furnish() -> None:
        namespaces.furnish(str(node.root), str(directory), keep, cgroup_mount())

    inside(node.netns, furnish)
    namespaces.mount("bpf", str(node.root / "sys/fs/bpf"), "bpf", data="mode=700")
    # Slave and not shared: an unmount below the node's root must never reach the machine's own.
    own = namespaces.Bind(str(topology.NETNS_DIRECTORY), "/run/netns", propagation="slave")
    namespaces.bind(str(node.root), own)
    for path in ("etc/cni/net.d", "opt/cni/bin", "run/cilium", "var/lib/cilium"):
        Path(namespaces.resolve_in(str(node.root), "/" + path)).mkdir(parents=True, exist_ok=True)
    for stale in Path(namespaces.resolve_in(str(node.root), "/etc/cni/net.d")).iterdir():
        stale.unlink()  # a configuration of the machine's own is not the node's
    (node.root / "etc/hostname").unlink(missing_ok=True)
    (node.root / "etc/hostname").write_text(node.name + "\n")


def processes_of(lab: str) -> list[int]:
    """Pids of all processes in the lab's cgroup."""
    found: list[int] = []
    for path in cgroup_of(lab).rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += [int(line) for line in path.read_text().split()]
    return found


def end_processes(lab: str) -> int:
    """Kill everything in the lab's cgroup and remove it; returns how many processes that were."""
    top = cgroup_of(lab)
    if not top.exists():
        return 0
    count = len(processes_of(lab))
    (top / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + REMOVAL_TIMEOUT_S
    while "populated 1" in (top / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise LabError(f"processes of lab {lab} do not end: {processes_of(lab)} in {top}")
        time.sleep(0.005)
    for path, _, _ in os.walk(top, topdown=False):
        os.rmdir(path)
    return count


def netns_of(lab: str) -> list[str]:
    """Names of the lab's network namespaces that exist."""
    if not topology.NETNS_DIRECTORY.exists():
        return []
    names = sorted(path.name for path in topology.NETNS_DIRECTORY.iterdir())
    return [name for name in names if topology.owns_netns(lab, name)]


def remove_netns(lab: str) -> int:
    """Remove the lab's network namespaces with all links in them; returns how many."""
    names = netns_of(lab)
    for name in names:
        path = topology.NETNS_DIRECTORY / name
        with contextlib.suppress(OSError):
            namespaces.unmount(str(path))
        path.unlink(missing_ok=True)
    return len(names)


def remove_directory(lab: str) -> int:
    """Unmount and remove the lab's directory; returns how many mounts that were."""
    directory = topology.LABS_DIRECTORY / lab
    count = len(namespaces.mounts_below(str(directory)))
    # Detaching the top takes the whole tree. Unmounting what is below one by one would be
    # dangerous if one of them ever shared its mounts with the machine's /run/netns.
    while str(directory) in namespaces.mounts_below(str(directory)):
        namespaces.unmount(str(directory))
    with contextlib.suppress(FileNotFoundError):
        directory.rmdir()
    return count
