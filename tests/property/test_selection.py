"""Who is chosen, against a plain restatement of the rules; draining, against a plain memory."""

from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath import alias, maglev
from mesh.draining import Drained
from mesh.guard import LocalPrefixes
from mesh.service_table import Services
from model.address import parse_address
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService, MeshSettings
from model.service import (
    L4,
    Affinity,
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
    SharedService,
)
from tests.support.naive_choice import choose_backends
from tests.support.naive_services import ServiceClaims, naive_table

OWN = ClusterName("c0")
CLUSTERS = [ClusterName(f"c{n}") for n in range(4)]
MESHES = st.builds(
    lambda is_global, affinity, order, threshold, weights: MeshSettings(
        is_global, True, affinity, tuple(order), threshold, tuple(sorted(weights.items()))
    ),
    st.booleans(),
    st.sampled_from(list(Affinity)),
    st.lists(st.sampled_from(CLUSTERS), unique=True),
    st.sampled_from([0, 1, 50, 67, 100]),
    st.dictionaries(st.sampled_from(CLUSTERS), st.sampled_from([0, 1, 3, 20, 10000])),
)


@st.composite
def found(draw: st.DrawFn) -> list[Backend]:
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(BackendState)))))
    return [
        Backend(
            parse_address("10.0.0.0").offset(place),
            80,
            Protocol.TCP,
            state,
            ClusterName(f"c{number}" if number else ""),
            ClusterId(number),
        )
        for place, (number, state) in enumerate(pairs)
    ]


def naive(
    mesh: MeshSettings, backends: list[Backend], expected: int
) -> tuple[set[Backend], dict[ClusterName, Fraction]]:
    """Chosen backends and each cluster's share, by trying every cluster for itself."""

    def active(cluster: ClusterName) -> list[Backend]:
        return [b for b in of(cluster) if b.state is BackendState.ACTIVE]

    def of(cluster: ClusterName) -> list[Backend]:
        return [b for b in backends if (b.cluster or OWN) == cluster]

    def before(one: ClusterName, other: ClusterName) -> bool:
        """Whether all of ``one`` are asked before any of ``other``."""
        if mesh.affinity is Affinity.LOCAL and (one == OWN) != (other == OWN):
            return one == OWN
        if mesh.affinity is Affinity.REMOTE and (one == OWN) != (other == OWN):
            return other == OWN
        if one in mesh.order:
            return other not in mesh.order or mesh.order.index(one) < mesh.order.index(other)
        return False

    if not any(active(c) for c in CLUSTERS):
        last = {b for b in of(OWN) if b.state is BackendState.TERMINATING}
        return last, {OWN: Fraction(1)} if last else {}
    taken: set[ClusterName] = set()
    for cluster in CLUSTERS:
        # A cluster is in unless some cluster before it is enough, together with its equals.
        needless = False
        for first in CLUSTERS:
            if mesh.is_global and before(first, cluster) and active(first):
                equals = [c for c in CLUSTERS if not before(c, first) and not before(first, c)]
                ready = len(active(OWN)) if OWN in equals else 0
                if not ready or 100 * ready >= mesh.threshold_pct * expected:
                    needless = True
        if active(cluster) and not needless:
            taken.add(cluster)
    given = {c: w for c, w in mesh.weights if c in taken and w} if mesh.is_global else {}
    if given:
        taken = set(given)
        total = sum(given.values())
        shares = {c: Fraction(w, total) for c, w in given.items()}
    else:
        count = sum(len(active(c)) for c in taken)
        shares = {c: Fraction(len(active(c)), count) for c in taken}
    return {b for c in taken for b in active(c)}, shares


@given(MESHES, found(), st.integers(0, 4))
@settings(deadline=None, max_examples=400)
def test_choice_equals_the_naive_one(
    mesh: MeshSettings, backends: list[Backend], missing: int
) -> None:
    """The same backends, and each cluster's part of the weights is its share, evenly within it."""
    ready = sum(not b.cluster_id and b.state is BackendState.ACTIVE for b in backends)
    chosen, weights = choose_backends(mesh, OWN, backends, ready + missing)
    wanted, shares = naive(mesh, backends, ready + missing)
    assert set(chosen) == wanted
    assert len(weights) in (0, len(chosen))
    assert all(w > 0 for w in weights)
    numbers = weights or (1,) * len(chosen)
    for cluster, share in shares.items():
        of = {n for b, n in zip(chosen, numbers, strict=True) if (b.cluster or OWN) == cluster}
        assert len(of) == 1
        part = sum(n for b, n in zip(chosen, numbers, strict=True) if (b.cluster or OWN) == cluster)
        assert Fraction(part, sum(numbers)) == share


def parts(chosen: list[Backend], weights: tuple[int, ...]) -> dict[ClusterName, Fraction]:
    """Each cluster's part of new connections."""
    numbers = weights or (1,) * len(chosen)
    found: dict[ClusterName, Fraction] = {}
    for backend, number in zip(chosen, numbers, strict=True):
        name = backend.cluster or OWN
        found[name] = found.get(name, Fraction(0)) + Fraction(number, sum(numbers))
    return found


SHARES = st.dictionaries(st.sampled_from(CLUSTERS[1:]), st.sampled_from([0, 10, 25, 50]))


@given(MESHES, found(), st.integers(0, 4), SHARES)
@settings(deadline=None, max_examples=400)
def test_what_returns_gets_its_share_of_what_it_would_get(
    mesh: MeshSettings, backends: list[Backend], missing: int, shares: dict[ClusterName, int]
) -> None:
    """Who is down gets nothing as long as another has a backend; who returns its share of its usual
    part; and what is left over goes as if none of these were there."""
    ready = sum(not b.cluster_id and b.state is BackendState.ACTIVE for b in backends)
    expected = ready + missing
    chosen, weights = choose_backends(mesh, OWN, backends, expected, shares)
    assert len(weights) in (0, len(chosen))
    assert all(w > 0 for w in weights)
    active = [b for b in backends if b.state is BackendState.ACTIVE]
    there = [b for b in backends if shares.get(b.cluster, 100) or b not in active]
    whole = [b for b in backends if b.cluster not in shares or b not in active]
    if not mesh.is_global or not any(b in active for b in there):
        there = whole = backends
    usual = parts(*choose_backends(mesh, OWN, there, expected))
    without = parts(*choose_backends(mesh, OWN, whole, expected))
    if not any(b in active for b in whole) or not mesh.is_global:
        assert parts(chosen, weights) == usual
        return
    wanted = {c: p * shares.get(c, 100) / 100 for c, p in usual.items()}
    rest = 1 - sum(wanted.values())
    for cluster, part in without.items():
        wanted[cluster] = wanted.get(cluster, Fraction(0)) + rest * part
    real = parts(chosen, weights)
    assert real.keys() == {c for c, p in wanted.items() if p}
    for cluster, part in real.items():
        assert abs(part - wanted[cluster]) < Fraction(1, 1000)


@given(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=60))
def test_alias_table_gives_each_its_weight(weights: list[int]) -> None:
    """Over all draws of all places every backend comes up as often as it weighs, to rounding."""
    table = alias.build(weights)
    assert len(table) == len(weights)
    draws = [alias.DRAWS - share for _, share in table]
    for other, share in table:
        assert 0 <= share < alias.DRAWS
        draws[other] += share
    whole = alias.DRAWS * len(weights)
    for drawn, weight in zip(draws, weights, strict=True):
        assert abs(drawn - whole * weight / sum(weights)) <= len(weights)


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 50), min_size=1, max_size=8))
@settings(deadline=None)
def test_maglev_table_gives_each_its_weight(weights: dict[str, int]) -> None:
    """Every backend has the part of the table that it weighs, to a turn; alike is unweighted."""
    ids = {name: number for number, name in enumerate(weights, start=1)}
    size = 4093
    table = maglev.build(ids, size, weights)
    for name, weight in weights.items():
        # The table ends in the middle of a turn, in which each backend has at most one entry.
        share = size * weight / sum(weights.values())
        assert abs(table.count(ids[name]) - share) <= max(2, len(weights))
    assert maglev.build(ids, size, dict.fromkeys(ids, 7)) == maglev.build(ids, size)


NAME = ServiceName("a", "x")
VIP = parse_address("10.96.0.1")
PORTS = {"http": L4(80, Protocol.TCP)}
ADDRESSES = st.sampled_from([parse_address(f"10.{n}.0.1") for n in range(4)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("says"), st.sampled_from(CLUSTERS[1:3]), st.none() | st.sets(ADDRESSES)),
        st.tuples(st.just("service"), st.none() | MESHES, st.none()),
        st.tuples(
            st.just("ours"), st.dictionaries(ADDRESSES, st.tuples(*[st.booleans()] * 3)), st.none()
        ),
        st.tuples(st.just("leave"), st.sampled_from(CLUSTERS[1:3]), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 10]), st.none()),
    ),
    max_size=30,
)
KEEP_S = 10


class Memory:
    """Everything that was ever said, and when."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.service: LocalService | None = None
        self.own: dict[Any, LocalBackend] = {}
        self.shared: dict[ClusterName, SharedService] = {}
        self.gone: dict[tuple[ClusterName, Any], float] = {}

    def claims(self) -> ServiceClaims:
        drained = tuple(
            Drained(address, PORTS, cluster, ClusterId(int(cluster[1:])))
            for (cluster, address), since_s in self.gone.items()
            if self.now_s < since_s + KEEP_S
        )
        return ServiceClaims(self.service, self.own, tuple(self.shared.values()), drained)


@given(STEPS)
@settings(deadline=None)
def test_draining_is_a_function_of_time_and_claims(steps: list[tuple[str, Any, Any]]) -> None:
    """After every step the table equals a full computation from what was said and when, and a
    reader who looks up only what was marked agrees."""
    memory = Memory()
    marked: set[Frontend] = set()
    table = Services(
        LocalPrefixes(), Selection.RANDOM, marked.add, OWN, lambda: memory.now_s, KEEP_S
    )
    reader: dict[Frontend, LoadBalancer] = {}
    for word, subject, value in steps:
        _apply(table, memory, word, subject, value)
        for frontend in marked:
            row = table.get(frontend)
            if row is None:
                reader.pop(frontend, None)
            else:
                reader[frontend] = row
        marked.clear()
        oracle = naive_table({NAME: memory.claims()}, LocalPrefixes(), Selection.RANDOM, OWN)
        assert dict(table.items()) == oracle
        assert reader == oracle


def _apply(table: Services, memory: Memory, word: str, subject: Any, value: Any) -> None:
    match word:
        case "says":
            before = memory.shared.pop(subject, None)
            record = None
            if value is not None:
                number = ClusterId(int(subject[1:]))
                backends = dict.fromkeys(sorted(value, key=int), PORTS)
                record = SharedService(subject, number, NAME, {}, backends)
                memory.shared[subject] = record
            now = value or set()
            for address in (before.backends if before else {}).keys() - now:
                memory.gone[subject, address] = memory.now_s
            for address in now:
                memory.gone.pop((subject, address), None)
            table.set_shared(subject, NAME, record)
        case "service":
            memory.service = None
            if subject is not None:
                memory.service = LocalService(NAME, {VIP: PORTS}, mesh=subject)
            table.set_service(NAME, memory.service)
        case "ours":
            memory.own = {a: LocalBackend(a, PORTS, *state) for a, state in subject.items()}
            table.set_backends(NAME, memory.own)
        case "leave":
            memory.shared.pop(subject, None)
            memory.gone = {k: v for k, v in memory.gone.items() if k[0] != subject}
            table.drop_cluster(subject)
        case _:
            memory.now_s += subject
            table.expire()
