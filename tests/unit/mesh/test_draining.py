"""Backends that vanish from a remote cluster's word keep their connections for a while."""

import pytest

from mesh import draining
from mesh.guard import LocalPrefixes
from mesh.service_table import Services
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService, MeshSettings
from model.service import (
    L4,
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
    SharedService,
)

NAME = ServiceName("shop", "rebel-base")
VIP = parse_address("10.96.0.10")
FRONT = Frontend(VIP, 80, Protocol.TCP)
TARGET = {"http": L4(8080, Protocol.TCP)}
BETA, GAMMA = ClusterName("beta"), ClusterName("gamma")
NUMBERS = {BETA: ClusterId(2), GAMMA: ClusterId(3)}


class World:
    """A table with a clock in our hand."""

    def __init__(self, drain_s: float = 60.0) -> None:
        self.now_s = 1000.0
        self.local = LocalPrefixes()
        self.table = Services(
            self.local,
            Selection.RANDOM,
            lambda frontend: None,
            ClusterName("alpha"),
            lambda: self.now_s,
            drain_s,
        )
        self.ours()

    def ours(self, *hosts: str, is_global: bool = True) -> None:
        mesh = MeshSettings(is_global=is_global)
        service = LocalService(NAME, {VIP: {"http": L4(80, Protocol.TCP)}}, mesh=mesh)
        self.table.set_service(NAME, service)
        addresses = [parse_address(h) for h in hosts]
        self.table.set_backends(NAME, {a: LocalBackend(a, TARGET) for a in addresses})

    def says(self, cluster: ClusterName, *hosts: str, shared: bool = True) -> None:
        backends = {parse_address(h): TARGET for h in hosts}
        record = SharedService(cluster, NUMBERS[cluster], NAME, {}, backends, shared=shared)
        self.table.set_shared(cluster, NAME, record)

    def after(self, seconds: float) -> None:
        self.now_s += seconds
        self.table.expire()

    @property
    def state(self) -> tuple[list[str], list[str]]:
        """Who is chosen; who only keeps connections."""
        row = self.table.get(FRONT)
        assert row is not None
        texts = [str(b.address) for b in row.backends]
        return texts[: row.selectable], texts[row.selectable :]


def test_a_backend_that_vanishes_is_kept_for_its_time() -> None:
    """No new connection at once, existing ones until the time is over."""
    world = World(60)
    world.says(BETA, "10.2.0.1", "10.2.0.2")
    world.says(BETA, "10.2.0.1")
    assert world.state == (["10.2.0.1"], ["10.2.0.2"])
    world.after(59)
    assert world.state == (["10.2.0.1"], ["10.2.0.2"])
    world.after(2)
    assert world.state == (["10.2.0.1"], [])


@pytest.mark.parametrize("how", ["deleted", "not shared", "empty"])
def test_every_way_to_vanish(how: str) -> None:
    """A deleted record, one that is not shared any more, one without backends."""
    world = World()
    world.says(BETA, "10.2.0.1")
    if how == "deleted":
        world.table.set_shared(BETA, NAME, None)
    elif how == "not shared":
        world.says(BETA, "10.2.0.1", shared=False)
    else:
        world.says(BETA)
    assert world.state == ([], ["10.2.0.1"])
    world.after(61)
    assert world.state == ([], [])


def test_it_is_never_the_last_resort() -> None:
    """We do not know that it still answers: better refused than lost."""
    world = World()
    world.says(BETA, "10.2.0.1")
    world.says(BETA)
    row = world.table.get(FRONT)
    assert row is not None
    assert (row.selectable, row.backends[0].state) == (0, BackendState.TERMINATING)


def test_one_that_comes_back_is_chosen_again_and_can_go_again() -> None:
    """Its time begins anew when it vanishes anew."""
    world = World(60)
    world.says(BETA, "10.2.0.1")
    world.says(BETA)
    world.after(50)
    world.says(BETA, "10.2.0.1")
    assert world.state == (["10.2.0.1"], [])
    world.says(BETA)
    world.after(50)
    assert world.state == ([], ["10.2.0.1"])
    world.after(11)
    assert world.state == ([], [])


def test_an_address_that_somebody_else_has_now_is_not_kept() -> None:
    """Ours, another cluster's, or inside our prefixes: the new owner has it."""
    for taken in ("ours", "gamma", "prefix"):
        world = World()
        world.says(BETA, "10.2.0.1")
        world.says(BETA)
        if taken == "ours":
            world.ours("10.2.0.1")
        elif taken == "gamma":
            world.says(GAMMA, "10.2.0.1")
        else:
            world.local.add(parse_prefix("10.2.0.0/24"))
            world.table.recheck(parse_prefix("10.2.0.0/24"))
            world.says(BETA)
        assert world.state[1] == [], taken


def test_a_cluster_that_leaves_takes_its_backends_along() -> None:
    """Without a way to them nothing is to be kept."""
    world = World()
    world.says(BETA, "10.2.0.1", "10.2.0.2")
    world.says(GAMMA, "10.3.0.1")
    world.says(BETA, "10.2.0.1")
    world.table.drop_cluster(BETA)
    assert world.state == (["10.3.0.1"], [])


def test_zero_means_at_once() -> None:
    """The setting can be switched off."""
    world = World(0)
    world.says(BETA, "10.2.0.1")
    world.says(BETA)
    assert world.state == ([], [])


def test_a_service_that_is_not_global_any_more_has_only_ours() -> None:
    """The user said so, and at once."""
    world = World()
    world.says(BETA, "10.2.0.1")
    world.says(BETA)
    world.ours("10.1.0.1", is_global=False)
    assert world.state == (["10.1.0.1"], [])


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that names others again and again fills no memory; the oldest go."""
    monkeypatch.setattr(draining, "LIMIT", 10)
    world = World()
    for number in range(50):
        world.says(BETA, f"10.2.0.{number}")
    kept = world.state[1]
    assert kept == [f"10.2.0.{number}" for number in range(39, 49)]


def test_last_words_that_are_not_said_again_are_kept_too() -> None:
    """A backend that vanished while our agent was down drains when its cluster speaks."""
    world = World(60)
    left = [
        Backend(parse_address(a), 8080, Protocol.TCP, cluster=BETA, cluster_id=ClusterId(2))
        for a in ("10.2.0.1", "10.2.0.2")
    ]
    world.table.restore([(FRONT, LoadBalancer(FRONT, NAME, tuple(left), 2))])
    world.says(BETA, "10.2.0.1")
    assert world.state == (["10.2.0.1", "10.2.0.2"], [])
    world.table.forget(ClusterId(2), drain=True)
    assert world.state == (["10.2.0.1"], ["10.2.0.2"])
    assert world.table.restored_clusters() == set()
    world.after(61)
    assert world.state == (["10.2.0.1"], [])
