"""Throw-away namespaces for measurements: pods and nodes with only the kernel's own forwarding.

Everything made here carries the prefix ``ist-b<pid>-`` and is removed at the end. The root
namespace gets no address and no route.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NETBENCH = Path(__file__).parent / "build" / "netbench"
PREFIX = f"ist-b{os.getpid()}-"


def run(*argv: str) -> str:
    """Run a command; its output, or ``CalledProcessError`` with its error text shown."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def ip(namespace: str, *words: str) -> str:
    """``ip`` inside a namespace."""
    return run("ip", "-n", namespace, *words)


def inside(namespace: str, *argv: str) -> list[str]:
    """A command line that runs inside a namespace and keeps the mounts (bpffs) of the caller."""
    return ["nsenter", f"--net=/run/netns/{namespace}", *argv]


def sysctl(namespace: str, name: str, value: str) -> None:
    """Set a namespaced sysctl."""
    run(*inside(namespace, "sysctl", "-q", "-w", f"{name}={value}"))


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with its loopback up."""
    full = PREFIX + name
    run("ip", "netns", "add", full)
    try:
        ip(full, "link", "set", "lo", "up")
        yield full
    finally:
        run("ip", "netns", "del", full)


def veth(a: str, a_name: str, b: str, b_name: str, mtu: int = 1500) -> None:
    """A pair with an end in each namespace, both up."""
    run(
        *("ip", "link", "add", a_name, "netns", a, "mtu", str(mtu), "type", "veth"),
        *("peer", "name", b_name, "netns", b, "mtu", str(mtu)),
    )
    ip(a, "link", "set", a_name, "up")
    ip(b, "link", "set", b_name, "up")


def plain_node(name: str) -> None:
    """Forwarding on, reverse-path filter off."""
    sysctl(name, "net.ipv4.ip_forward", "1")
    sysctl(name, "net.ipv4.conf.all.rp_filter", "0")
    sysctl(name, "net.ipv4.conf.default.rp_filter", "0")


def mac(namespace_: str, interface: str) -> str:
    """The hardware address of a device."""
    return str(json.loads(ip(namespace_, "-j", "link", "show", interface))[0]["address"])


def plain_pod(node: str, pod: str, address: str, interface: str, route_mtu: int = 1500) -> None:
    """Attach a pod by a routed veth pair: a /32, a link-local gateway, fixed neighbours."""
    veth(node, interface, pod, "eth0")
    sysctl(node, f"net.ipv4.conf.{interface}.rp_filter", "0")
    ip(node, "route", "add", f"{address}/32", "dev", interface)
    ip(pod, "address", "add", f"{address}/32", "dev", "eth0")
    ip(pod, "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
    ip(pod, "route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "mtu", str(route_mtu))
    ip(pod, "neigh", "add", "169.254.1.1", "lladdr", mac(node, interface), "dev", "eth0")
    ip(node, "neigh", "add", address, "lladdr", mac(pod, "eth0"), "dev", interface)


def plain_vxlan(node: str, local: str, remote: str, pods: str, mtu: int = 1450) -> None:
    """A point-to-point VXLAN device and a route for the other node's pods over it."""
    ip(
        *(node, "link", "add", "vx0", "mtu", str(mtu), "type", "vxlan", "id", "42"),
        *(
            "local",
            local,
            "remote",
            remote,
            "dstport",
            "8472",
            "nolearning",
            "noudpcsum",
            "dev",
            "eth0",
        ),
    )
    ip(node, "link", "set", "vx0", "up")
    ip(node, "route", "add", pods, "dev", "vx0", "mtu", str(mtu))
    sysctl(node, "net.ipv4.conf.vx0.rp_filter", "0")
    sysctl(node, "net.ipv4.conf.vx0.proxy_arp", "1")


@contextmanager
def server(namespace_: str, address: str, port: int = 7000) -> Iterator[None]:
    """A netbench server inside a namespace, ended at exit."""
    process = subprocess.Popen(
        inside(namespace_, str(NETBENCH), "server", address, str(port)),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("netbench server did not start")
        yield
    finally:
        process.kill()
        process.wait()


def client(namespace_: str, mode: str, address: str, seconds: float, port: int = 7000) -> float:
    """Operations (or bytes, for ``stream``) per second. ``stream/bbr`` names its congestion
    control."""
    what, _, congestion = mode.partition("/")
    words = [what, address, str(port), str(seconds), *([congestion] if congestion else [])]
    return float(run(*inside(namespace_, str(NETBENCH), *words)).strip())


@contextmanager
def plain_same_node() -> Iterator[tuple[str, str]]:
    """Two pods of one node joined by plain veth routing: (client namespace, server address)."""
    with ExitStack() as stack:
        node, a, b = (stack.enter_context(namespace(n)) for n in ("pn", "pa", "pb"))
        plain_node(node)
        plain_pod(node, a, "10.1.0.2", "pa")
        plain_pod(node, b, "10.1.0.3", "pb")
        stack.enter_context(server(b, "10.1.0.3"))
        yield a, "10.1.0.3"


@contextmanager
def plain_two_nodes() -> Iterator[tuple[str, str]]:
    """Two pods behind two nodes joined by plain VXLAN: (client namespace, server address)."""
    with ExitStack() as stack:
        n1, n2, a, b = (stack.enter_context(namespace(n)) for n in ("v1", "v2", "va", "vb"))
        veth(n1, "eth0", n2, "eth0")
        for node, local, remote, pods in (
            (n1, "172.20.0.1", "172.20.0.2", "10.2.0.0/24"),
            (n2, "172.20.0.2", "172.20.0.1", "10.1.0.0/24"),
        ):
            plain_node(node)
            ip(node, "address", "add", f"{local}/24", "dev", "eth0")
            plain_vxlan(node, local, remote, pods)
        plain_pod(n1, a, "10.1.0.2", "pa", 1450)
        plain_pod(n2, b, "10.2.0.2", "pb", 1450)
        stack.enter_context(server(b, "10.2.0.2"))
        yield a, "10.2.0.2"
