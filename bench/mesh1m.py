"""A million pods: 250 clusters of 4,000, and one agent from its start until its kernel has them."""

from collections.abc import Iterator

from bench import rehearse
from bench.figure import Figure
from kind.simulate.shape import Shape

SHAPE = Shape(clusters=250, nodes=100, endpoints=4000, identities=100, services=20, backends=2)


def measure() -> Iterator[Figure]:
    """Seconds by the clock, and megabytes."""
    found = rehearse.report(SHAPE)
    start = found.bootstrap
    detail = {
        "in_sync_s": round(start.in_sync_s, 2),
        "cpu_s": round(start.cpu_s, 2),
        "rows": found.maps["ipcache"][0],
    }
    yield Figure("mesh1m.wall_s", round(start.programmed_s, 2), "s", detail)
    yield Figure("mesh1m.rss_mb", found.rss_mb, "MB", {"peak": round(found.peak_mb)})
