"""A lab of two joined clusters for measurements, removed at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kind import story
from kind.lab import down, up
from kind.lab.state import load
from kind.lab.topology import Topology

NAME = "bench"


@contextmanager
def joined_lab(*values: str) -> Iterator[tuple[story.Mesh, Topology]]:
    """Two clusters of two nodes, connected and synchronised, rebel-base and x-wing in both.

    ``values``: settings of the installation, ``key=value``.
    """
    down.remove(NAME)
    up.run(up.Request(NAME, values=values), lambda *_: None)
    try:
        mesh = story.Mesh(NAME)
        for number, act in enumerate((story.clusters, story.joined), 1):
            step = story.Step(number, "")
            act(mesh, step)
            if not step.held:
                raise RuntimeError(f"the lab is not as it should be: {step.checks}")
        yield mesh, load(NAME).topology()
    finally:
        down.remove(NAME)


def pins(lab: Topology, node: str) -> Path:
    """A node's pinned tables, as seen from outside the node."""
    found = next(n for n in lab.nodes if n.name == node)
    return found.root / "sys/fs/bpf/isthmus"
