"""Order, threshold and weights of clusters: who is chosen, and how often."""

import pytest

from mesh.pools import Owner
from mesh.selection import WEIGHT_LIMIT, is_preferred
from model.address import parse_address
from model.cluster import ClusterId, ClusterName
from model.local_service import MeshSettings
from model.service import Affinity, Backend, BackendState, Protocol
from tests.support.naive_choice import choose_backends

OWN = ClusterName("c1")
NAMES = {"c1": 0, "c2": 2, "c3": 3, "c4": 4}


def backends(text: str) -> list[Backend]:
    """``c1 c1! c2~``: one of ours, one not ready, one of c2 that is terminating."""
    found = []
    for place, word in enumerate(text.split()):
        name = word.rstrip("!~")
        state = {"!": BackendState.QUARANTINED, "~": BackendState.TERMINATING}.get(word[-1])
        number = NAMES[name]
        found.append(
            Backend(
                parse_address(f"10.{number}.{place // 256}.{place % 256}"),
                80,
                Protocol.TCP,
                state or BackendState.ACTIVE,
                ClusterName(name if number else ""),
                ClusterId(number),
            )
        )
    return found


def settings(
    affinity: str = "none", order: str = "", threshold: int = 0, **weights: int
) -> MeshSettings:
    return MeshSettings(
        is_global=True,
        affinity=Affinity(affinity),
        order=tuple(ClusterName(n) for n in order.split()),
        threshold_pct=threshold,
        weights=tuple((ClusterName(n), w) for n, w in weights.items()),
    )


def chosen(mesh: MeshSettings, text: str) -> str:
    """Names of the clusters that are chosen, one for each backend."""
    found = backends(text)
    expected = sum(not b.cluster_id and b.state is not BackendState.TERMINATING for b in found)
    return " ".join(b.cluster or OWN for b in choose_backends(mesh, OWN, found, expected)[0])


@pytest.mark.parametrize(
    ("affinity", "order", "there", "expected"),
    [
        ("none", "c1 c3", "c1 c2 c3", "c1"),
        ("none", "c1 c3", "c1! c2 c3", "c3"),
        ("none", "c1 c3", "c1! c2 c4 c3!", "c2 c4"),  # the rest together
        ("none", "c3", "c1 c2", "c1 c2"),  # ours is of the rest
        ("none", "c3 c2", "c1 c2 c3", "c3"),
        ("none", "c3 c2", "c1 c2", "c2"),
        ("local", "c3 c2", "c1 c2 c3", "c1"),  # affinity before order
        ("local", "c3 c2", "c1! c2 c3", "c3"),
        ("local", "c3 c1", "c1! c2", "c2"),
        ("remote", "c3 c2", "c1 c2 c3", "c3"),
        ("remote", "c1 c2", "c1 c2 c3", "c2"),
        ("remote", "c2", "c1 c3", "c3"),
        ("remote", "c2", "c1", "c1"),
        ("none", "c2", "c1~ c2~", "c1"),  # the last resort is ours alone
        ("none", "c2 c3", "c1! c2! c3!", ""),
    ],
)
def test_order(affinity: str, order: str, there: str, expected: str) -> None:
    """The first cluster of the order with an active backend has all new connections."""
    assert chosen(settings(affinity, order), there) == expected


@pytest.mark.parametrize(
    ("affinity", "order", "threshold", "there", "expected"),
    [
        ("local", "", 50, "c1 c1 c2", "c1 c1"),
        ("local", "", 50, "c1 c1! c2", "c1"),  # exactly the threshold is enough
        ("local", "", 51, "c1 c1! c2", "c1 c2"),
        ("local", "", 50, "c1 c1! c1! c2 c3", "c1 c2 c3"),  # others are one rank without order
        ("local", "c2 c3", 50, "c1 c1! c1! c2 c3", "c1 c2"),  # with it, one after the other
        ("local", "c2 c3", 50, "c1 c1! c1! c3", "c1 c3"),
        ("local", "", 100, "c1 c1! c2", "c1 c2"),
        ("local", "", 100, "c1 c1~ c2", "c1"),  # who terminates is not missed
        ("local", "", 100, "c1 c1!", "c1"),  # there is nobody to add
        ("local", "", 0, "c1 c1! c1! c2", "c1"),
        ("local", "", 50, "c1! c1! c2", "c2"),
        ("none", "c2 c1 c3", 50, "c1 c1! c1! c3", "c1 c3"),  # ours in the middle of the order
        ("none", "c2 c1 c3", 50, "c1! c2 c3", "c2"),  # of theirs one is enough
        ("remote", "", 50, "c1 c1! c1! c2", "c2"),
        ("none", "", 50, "c1 c1! c1! c2", "c1 c2"),  # all are chosen anyway
    ],
)
def test_threshold(affinity: str, order: str, threshold: int, there: str, expected: str) -> None:
    """With less than this share of ours ready, the next cluster helps; ours stay in use."""
    assert chosen(settings(affinity, order, threshold), there) == expected


def weights(mesh: MeshSettings, text: str) -> list[tuple[str, int]]:
    found, numbers = choose_backends(mesh, OWN, backends(text), 0)
    names = [b.cluster or OWN for b in found]
    return list(zip(names, numbers or [1] * len(names), strict=True))


@pytest.mark.parametrize(
    ("mesh", "there", "expected"),
    [
        (settings(c1=80, c2=20), "c1 c2", [("c1", 4), ("c2", 1)]),
        # The share is the cluster's, however many backends it has.
        (settings(c1=80, c2=20), "c1 c2 c2", [("c1", 8), ("c2", 1), ("c2", 1)]),
        (settings(c1=1, c2=1), "c1 c2 c2", [("c1", 2), ("c2", 1), ("c2", 1)]),
        (settings(c1=1, c2=2), "c1 c2 c2", [("c1", 1), ("c2", 1), ("c2", 1)]),
        (settings(c1=80, c2=20), "c1 c1! c2", [("c1", 4), ("c2", 1)]),
        (settings(c1=80, c2=20), "c1", [("c1", 1)]),
        # Who is not named, or has 0, helps only when nobody with a weight is there.
        (settings(c1=80, c2=20), "c1 c2 c3", [("c1", 4), ("c2", 1)]),
        (settings(c1=1, c2=0), "c1 c2", [("c1", 1)]),
        (settings(c1=1, c2=0), "c1! c2 c3", [("c2", 1), ("c3", 1)]),
        # Weights share out what affinity, order and threshold have chosen.
        (settings("local", c1=80, c2=20), "c1 c2", [("c1", 1)]),
        (settings("none", "c2 c3", c2=80, c3=20), "c1 c2 c3", [("c2", 1)]),
        (settings("local", "", 100, c1=80, c2=20), "c1 c2", [("c1", 1)]),
    ],
)
def test_weights(mesh: MeshSettings, there: str, expected: list[tuple[str, int]]) -> None:
    """New connections are shared out among clusters as they weigh."""
    assert weights(mesh, there) == expected


def test_weights_with_threshold() -> None:
    """When the threshold adds a cluster, the weights hold between both."""
    mesh = settings("local", "", 60, c1=3, c2=1)
    found, numbers = choose_backends(mesh, OWN, backends("c1 c1! c2"), 2)
    assert [b.cluster or OWN for b in found] == ["c1", "c2"]
    assert numbers == (3, 1)


def test_weights_stay_small() -> None:
    """Numbers of backends without a common divisor make no numbers without end."""
    mesh = settings(c1=9999, c2=10000, c3=1)
    text = " ".join(["c1"] * 211 + ["c2"] * 223 + ["c3"] * 227)
    _, numbers = choose_backends(mesh, OWN, backends(text), 211)
    assert 0 < min(numbers) <= max(numbers) < WEIGHT_LIMIT
    assert sum(numbers[:211]) / sum(numbers) == pytest.approx(9999 / 20000, rel=0.001)


def test_settings_mean_nothing_without_global() -> None:
    """A service of one cluster knows no ranks and no weights."""
    mesh = MeshSettings(order=(ClusterName("c2"),), weights=((ClusterName("c2"), 5),))
    assert weights(mesh, "c1 c1") == [("c1", 1), ("c1", 1)]


@pytest.mark.parametrize(
    ("affinity", "order", "expected"),
    [
        ("local", "", "c1"),
        ("remote", "", "c2 c3"),
        ("none", "c3 c1", "c3"),
        ("local", "c3", "c1"),
        ("remote", "c1 c3", "c3"),
        ("remote", "c3", "c3"),
    ],
)
def test_preferred(affinity: str, order: str, expected: str) -> None:
    """The mark that `service list` shows: backends of clusters of the first rank."""
    mesh = settings(affinity, order)
    found = [
        b.cluster or OWN
        for b in backends("c1 c2 c3")
        if is_preferred(mesh, OWN, Owner(b.cluster, b.cluster_id))
    ]
    assert " ".join(found) == expected
