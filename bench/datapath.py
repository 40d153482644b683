"""Pod to pod: our programs against the kernel's own forwarding with the same devices."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import topology
from bench.figure import Figure, interleave, ratio
from bench.node import our_node

RUNS = 7
SECONDS = 1.0
MODES = ("rr", "crr", "stream")
# Shown beside CUBIC, without limits: BBR keeps twice (least round trip x bandwidth) in flight, so
# in a stream without a wire a quicker path is the slower one.
OTHER_STREAMS = ("stream/reno", "stream/bbr")


@contextmanager
def our_same_node() -> Iterator[tuple[str, str]]:
    """Two pods of one node under our datapath."""
    with ExitStack() as stack:
        node, a, b = (stack.enter_context(topology.namespace(n)) for n in ("on", "oa", "ob"))
        peer = stack.enter_context(topology.namespace("oz"))
        topology.veth(node, "eth0", peer, "eth0")
        topology.ip(node, "address", "add", "172.20.0.1/24", "dev", "eth0")
        ours = stack.enter_context(our_node(node, "172.20.0.1", "10.1.0.1", "10.1.0.0/24"))
        ours.pod(2, a, "10.1.0.2")
        ours.pod(3, b, "10.1.0.3")
        stack.enter_context(topology.server(b, "10.1.0.3"))
        yield a, "10.1.0.3"


@contextmanager
def our_two_nodes() -> Iterator[tuple[str, str]]:
    """Two pods of two clusters' nodes under our datapath."""
    with ExitStack() as stack:
        n1, n2, a, b = (
            stack.enter_context(topology.namespace(n)) for n in ("w1", "w2", "wa", "wb")
        )
        topology.veth(n1, "eth0", n2, "eth0")
        topology.ip(n1, "address", "add", "172.20.0.1/24", "dev", "eth0")
        topology.ip(n2, "address", "add", "172.20.0.2/24", "dev", "eth0")
        one = stack.enter_context(our_node(n1, "172.20.0.1", "10.1.0.1", "10.1.0.0/24"))
        two = stack.enter_context(our_node(n2, "172.20.0.2", "10.2.0.1", "10.2.0.0/24"))
        one.pod(2, a, "10.1.0.2")
        two.pod(2, b, "10.2.0.2")
        one.send("remote", prefix="10.2.0.2/32", node="172.20.0.2", identity=140000)
        two.send("remote", prefix="10.1.0.2/32", node="172.20.0.1", identity=70002)
        stack.enter_context(topology.server(b, "10.2.0.2"))
        yield a, "10.2.0.2"


def other_streams() -> list[str]:
    """Those of ``OTHER_STREAMS`` whose congestion control this kernel has."""
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return [mode for mode in OTHER_STREAMS if mode.partition("/")[2] in known]


def measure() -> Iterator[Figure]:
    """Same node against plain veth routing, across nodes against plain VXLAN."""
    for place, ours, peer in (
        ("same", our_same_node, topology.plain_same_node),
        ("cross", our_two_nodes, topology.plain_two_nodes),
    ):
        with ours() as mine, peer() as theirs:
            for mode in (*MODES, *other_streams()):
                samples = interleave(
                    RUNS,
                    {
                        "ours": lambda: topology.client(mine[0], mode, mine[1], SECONDS),  # noqa: B023 -- called within the iteration
                        "peer": lambda: topology.client(theirs[0], mode, theirs[1], SECONDS),  # noqa: B023
                    },
                )
                yield ratio(
                    f"datapath.{place}_{mode.replace('/', '_')}_ratio",
                    samples["ours"],
                    samples["peer"],
                )
