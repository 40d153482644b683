"""Services: requests through ours and through iptables DNAT with 1, 1,000 and 10,000 of them.

The service under test is the last one of the list, the worst place in a chain of rules.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from bench import topology
from bench.figure import Figure, interleave
from bench.node import our_node
from model.address import parse_address

RUNS = 5
SECONDS = 1.0
COUNTS = (1, 1000, 10000)


def frontend(count: int) -> str:
    """Address of the last of ``count`` services."""
    return str(parse_address("10.101.0.10").offset(count - 1))


@contextmanager
def ours(tag: str, count: int) -> Iterator[str]:
    """The client's namespace, with ``count`` services in our maps."""
    with ExitStack() as stack:
        names = [f"{tag}n", f"{tag}a", f"{tag}b", f"{tag}z"]
        node, a, b, peer = (stack.enter_context(topology.namespace(n)) for n in names)
        topology.veth(node, "eth0", peer, "eth0")
        topology.ip(node, "address", "add", "172.20.0.1/24", "dev", "eth0")
        mine = stack.enter_context(our_node(node, "172.20.0.1", "10.1.0.1", "10.1.0.0/24"))
        mine.pod(2, a, "10.1.0.2")
        mine.pod(3, b, "10.1.0.3")
        mine.send("services", count=count, backend="10.1.0.3", port=7000, maglev=False)
        stack.enter_context(topology.server(b, "10.1.0.3"))
        yield a


@contextmanager
def iptables(tag: str, count: int) -> Iterator[str]:
    """The client's namespace, with ``count`` DNAT rules in one chain."""
    with ExitStack() as stack:
        names = [f"{tag}n", f"{tag}a", f"{tag}b"]
        node, a, b = (stack.enter_context(topology.namespace(n)) for n in names)
        topology.plain_node(node)
        topology.plain_pod(node, a, "10.1.0.2", "pa")
        topology.plain_pod(node, b, "10.1.0.3", "pb")
        rules = "\n".join(
            f"-A PREROUTING -d {frontend(n + 1)}/32 -p tcp --dport 80 "
            "-j DNAT --to-destination 10.1.0.3:7000"
            for n in range(count)
        )
        subprocess.run(
            topology.inside(node, "iptables-restore"),
            input=f"*nat\n{rules}\nCOMMIT\n",
            text=True,
            check=True,
        )
        stack.enter_context(topology.server(b, "10.1.0.3"))
        yield a


def measure() -> Iterator[Figure]:
    """Requests on one connection, and connections, per second."""
    with ExitStack() as stack:
        subjects = {}
        for count in COUNTS:
            mine = stack.enter_context(ours(f"lo{count}", count))
            theirs = stack.enter_context(iptables(f"li{count}", count))
            subjects[f"ours_{count}"] = (mine, frontend(count))
            subjects[f"iptables_{count}"] = (theirs, frontend(count))
        for mode in ("rr", "crr"):
            samples = interleave(
                RUNS,
                {
                    name: partial(topology.client, netns, mode, address, SECONDS, 80)
                    for name, (netns, address) in subjects.items()
                },
            )
            medians = {name: round(median(values)) for name, values in samples.items()}
            yield Figure(
                f"lb.{mode}_10000_vs_1_ratio",
                round(medians["ours_10000"] / medians["ours_1"], 3),
                "ratio",
                {
                    "per_second": medians,
                    "samples": {k: [round(x) for x in v] for k, v in samples.items()},
                },
            )
            for count in COUNTS:
                yield Figure(
                    f"lb.{mode}_{count}_vs_iptables_ratio",
                    round(medians[f"ours_{count}"] / medians[f"iptables_{count}"], 3),
                    "ratio",
                    {"per_second": medians},
                )
