"""What policy costs a request and its response: without it, enforced, and with 1,000 rows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import topology
from bench.figure import Figure, interleave, ratio
from bench.node import our_node

RUNS = 9
SECONDS = 1.0
ROWS = 1000


@contextmanager
def pair(tag: str, number: int, rows: int | None) -> Iterator[tuple[str, str]]:
    """Two pods of one node; ``rows``: of policy each, ``None`` for a datapath without policy."""
    with ExitStack() as stack:
        node, a, b = (stack.enter_context(topology.namespace(f"{tag}{n}")) for n in "nab")
        peer = stack.enter_context(topology.namespace(f"{tag}z"))
        topology.veth(node, "eth0", peer, "eth0")
        topology.ip(node, "address", "add", f"172.20.{number}.1/24", "dev", "eth0")
        ours = stack.enter_context(
            our_node(node, f"172.20.{number}.1", "10.1.0.1", "10.1.0.0/24", policy=rows is not None)
        )
        ours.pod(2, a, "10.1.0.2")
        ours.pod(3, b, "10.1.0.3")
        if rows is not None:
            for endpoint in (2, 3):
                ours.send("policy", number=endpoint, rows=rows)
        stack.enter_context(topology.server(b, "10.1.0.3"))
        yield a, "10.1.0.3"


def measure() -> Iterator[Figure]:
    """``rr`` of three nodes in turn; both figures are ratios to the one without policy."""
    with pair("p0", 0, None) as without, pair("p1", 1, 0) as bare, pair("p2", 2, ROWS) as full:
        subjects = {
            name: lambda at=at: topology.client(at[0], "rr", at[1], SECONDS)
            for name, at in (("without", without), ("bare", bare), ("full", full))
        }
        samples = interleave(RUNS, subjects)
        yield ratio("policy.rr_1000_ratio", samples["full"], samples["without"])
        yield ratio("policy.rr_enforced_ratio", samples["bare"], samples["without"])
