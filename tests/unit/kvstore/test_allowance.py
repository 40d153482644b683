"""What one remote cluster may cost: a million addresses, and no more than its pace."""

import pytest

from kvstore.allowance import Limits, Pace, Purse
from wire.etcd import keys
from wire.etcd.errors import RemoteWireError


def test_a_million_endpoints_fit_by_default() -> None:
    """The limits are there for lies, not for large clusters."""
    assert Limits().rows[keys.IP] >= 1_000_000


def test_a_purse_counts_what_is_kept() -> None:
    """A value replaces its former self, a deletion gives room; what does not fit is named."""
    purse = Purse(Limits(all_bytes={keys.NODES: 100}))
    purse.check(keys.NODES, "a", b"x" * 60, "a")
    purse.keep(keys.NODES, "a", 60)
    purse.check(keys.NODES, "a", b"x" * 100, "a")
    with pytest.raises(RemoteWireError, match="b: no room: the nodes of this cluster"):
        purse.check(keys.NODES, "b", b"x" * 41, "b")
    purse.keep(keys.NODES, "a", 0)
    purse.check(keys.NODES, "b", b"x" * 100, "b")
    purse.keep(keys.IP, "c", 1 << 40)  # addresses are bounded by their number
    purse.check(keys.IP, "d", b"x", "d")
    with pytest.raises(RemoteWireError, match="more than the 16384 of a value"):
        purse.check(keys.IP, "d", b"x" * 16385, "d")


def test_a_pace_fills_by_time() -> None:
    """A burst is taken at once, then only what has come in; one that is full takes any request."""
    pace = Pace(10, 100)
    assert pace.take(100, 1.0)
    assert not pace.take(1, 1.0)
    assert pace.wait_s(5) == pytest.approx(0.5)
    assert pace.take(5, 1.5)
    assert not pace.take(101, 2.0)
    assert pace.take(500, 100.0)
    assert pace.wait_s(10) == pytest.approx(41.0)
