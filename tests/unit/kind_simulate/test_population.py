"""Simulated clusters: their rows are what a reader accepts, and the truth follows every change."""

import random

import pytest

from datapath import encoding
from kind.simulate.churn import MIX, Churn, Table
from kind.simulate.population import Population
from kind.simulate.shape import Shape
from model.address import Prefix, host_prefix, unpack
from model.cluster import ClusterId, identity_range
from wire.etcd import identity_v1, ip_v1, keys, node_v1, service_v1

SHAPE = Shape(clusters=3, nodes=5, endpoints=40, identities=7, services=3, backends=2)


def test_every_row_is_one_that_a_reader_accepts() -> None:
    """Each value decodes under the rules for its cluster, and inside what its nodes declare."""
    population = Population(SHAPE)
    for cluster in population.clusters:
        name, number = SHAPE.name(cluster.number), ClusterId(cluster.number)
        allowed = identity_range(number)
        declared: list[Prefix] = []
        count = 0
        for row in population.rows(cluster):
            count += 1
            assert row.value is not None
            match row.resource:
                case keys.NODES:
                    node = node_v1.decode(row.name, row.value, name, number, row.name)
                    declared += node.pod_cidrs
                case keys.IDENTITIES:
                    identity_v1.decode(row.name, row.value, name, allowed, row.name)
                case keys.IP:
                    prefix, _ = ip_v1.decode(row.name, row.value, allowed, row.name)
                    assert any(d.covers(prefix) for d in declared)
                case _:
                    service = service_v1.decode(row.name, row.value, name, number, row.name)
                    assert len(service.backends) == SHAPE.backends
                    assert all(any(b in d for d in declared) for b in service.backends)
        assert count == SHAPE.keys // SHAPE.clusters
    assert len(population.truth.hosts) == 3 * (40 + 5)
    assert len(population.truth.prefixes) == 3 * 5
    assert [len(b) for b in population.truth.backends] == [6, 6, 6]


def test_churn_is_a_function_of_its_seed_and_keeps_the_truth() -> None:
    """Two runs of a seed are the same, another seed is not; the truth is what the rows say."""

    def play(seed: int) -> tuple[list[tuple[str, str, bytes | None]], Population]:
        population = Population(SHAPE)
        for cluster in population.clusters:
            for _ in population.rows(cluster):
                pass
        churn = Churn(population, random.Random(seed))
        found = []
        for _ in range(2000):
            change = churn.next(())
            found.append((change.kind, change.row.name, change.row.value))
            if change.effect is not None and change.effect.table is Table.HOSTS:
                assert isinstance(change.effect.key, bytes)
                assert population.truth.hosts.get(change.effect.key) == change.effect.wanted
        return found, population

    first, population = play(7)
    again, _ = play(7)
    other, _ = play(8)
    assert first == again
    assert first != other
    assert {kind for kind, _, _ in first} == set(MIX)

    blank = Population(SHAPE)
    rows = [row for cluster in blank.clusters for row in blank.rows(cluster)]
    said = {row.name for row in rows if row.resource == keys.IP}
    for kind, name, value in first:
        if kind.startswith("pod"):
            (said.discard if value is None else said.add)(name)
    pods = {
        str(unpack(key))
        for key, row in population.truth.hosts.items()
        if encoding.parse_ipcache_value(row).tunnel_endpoint is not None
    }
    assert pods == said


@pytest.mark.parametrize(
    ("field", "value"),
    [("clusters", 0), ("clusters", 511), ("nodes", 9000), ("endpoints", 40000), ("backends", 30)],
)
def test_what_does_not_fit_is_told(field: str, value: int) -> None:
    """A shape that has no room says which option, and what it may be."""
    sizes = {"clusters": 3, "nodes": 5, "endpoints": 40, "identities": 7, "services": 3}
    with pytest.raises(ValueError, match=f"--{field} is {value}: use "):
        Shape(**{**sizes, "backends": 2, field: value})


def test_no_two_clusters_share_an_address() -> None:
    """Blocks of pods and nodes do not touch, at the largest size too."""
    shape = Shape(510, 100, 1000, 100, 20, 2)
    assert shape.max_connected == 511
    assert shape.pod_prefix(1, 103).last_bits < shape.pod_prefix(2, 0).bits
    assert shape.pod_prefix(1, 99).covers(host_prefix(shape.pod_ip(1, 99, 9)))
    assert shape.node_ip(1, 103) < shape.node_ip(2, 0)
    assert shape.node_ip(510, 103) < shape.node_ip(511, 0)
