"""Between the nodes of a lab that encrypts, nothing of pods is seen while a test runs; and where a
lab does not encrypt, the same sniffer sees what is said.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.canary_traffic import Place, say_once
from tests.support.lab import Lab
from tests.support.sniffer import Sniffer

NODES = ["172.20.0.0/16"]
_seen: set[str] = set()  # names of labs in clear text whose sniffer has shown that it sees


def sniffer(lab: Lab) -> Sniffer:
    """On the bridge between all nodes; what pods and nodes say to each other is the nodes' own."""
    pods = [f"10.{cluster.index}.0.0/16" for cluster in lab.topology.clusters]
    return Sniffer(lab.topology.underlay_netns, pods, nodes=NODES)


@contextmanager
def watching(running: list[Lab]) -> Iterator[None]:
    """All labs, for the time of one test."""
    sniffers = [(lab.name, sniffer(lab)) for lab in running if lab.encrypts]
    try:
        yield
    finally:
        seen = [(name, found.stop()) for name, found in sniffers]
    for name, sight in seen:
        assert sight.missed == 0, f"lab {name}: the sniffer missed {sight.missed} frames"
        assert sight.leaks == [], f"lab {name}: {sight.leaked_bytes} bytes: {sight.leaks}"
    for lab in running:
        if not lab.encrypts and lab.name not in _seen and len(lab.topology.nodes) > 1:
            _control(lab)
            _seen.add(lab.name)


def _control(lab: Lab) -> None:
    one, two = lab.topology.nodes[0], lab.topology.nodes[-1]
    found = sniffer(lab)
    say_once(Place(one.netns_path, str(one.address)), str(two.address))
    assert any("canary" in leak for leak in found.stop().leaks), f"lab {lab.name}: a blind sniffer"
