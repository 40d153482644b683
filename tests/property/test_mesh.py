"""Order never shows: any history of claims ends in the table that the oracle makes of the last."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.guard import LocalPrefixes
from mesh.ipcache import Claimant, Ipcache, IpClaim, desired_ipcache
from mesh.service_table import Services
from model.address import Prefix, host_prefix, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry, Source
from model.local_service import LocalBackend, LocalService, MeshSettings
from model.service import (
    L4,
    Affinity,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
    SharedService,
)
from tests.support.naive_services import ServiceClaims, naive, naive_table

CLUSTERS = st.sampled_from([ClusterName("beta"), ClusterName("gamma")])
PREFIXES = st.sampled_from(
    [
        *(host_prefix(parse_address(f"10.1.0.{n}")) for n in range(3)),
        parse_prefix("10.1.0.0/24"),
        parse_prefix("10.2.0.0/24"),
    ]
)
OWN_PREFIXES = st.sampled_from([parse_prefix("10.1.0.0/30"), parse_prefix("10.2.0.0/16")])
# Also claims around a prefix of ours are judged again, and the list of ours does not tell them.
EVERYTHING = parse_prefix("0.0.0.0/0")
CLAIMANTS = st.one_of(
    st.builds(Claimant, st.just(Source.CLUSTERMESH), CLUSTERS),
    st.builds(
        Claimant,
        st.just(Source.CUSTOM_RESOURCE),
        st.just(ClusterName("alpha")),
        st.sampled_from(["default/a", "default/b"]),
    ),
    st.just(Claimant(Source.LOCAL, ClusterName("alpha"), "endpoint/1")),
    st.just(Claimant(Source.RESTORED, origin="2")),
)
CLAIMS = st.builds(
    lambda number, born: IpClaim(IpcacheEntry(NumericIdentity(number)), born=born),
    st.integers(256, 259),
    st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
)
IPCACHE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), PREFIXES, CLAIMANTS, CLAIMS),
        st.tuples(st.just("drop"), PREFIXES, CLAIMANTS, st.none()),
        st.tuples(st.just("leave"), st.none(), CLUSTERS, st.none()),
        st.tuples(st.just("ours"), OWN_PREFIXES, st.none(), st.none()),
        st.tuples(st.just("not ours"), OWN_PREFIXES, st.none(), st.none()),
    ),
    max_size=40,
)


@given(IPCACHE_STEPS)
@settings(deadline=None)
def test_ipcache_is_a_function_of_its_claims(steps: list[tuple[str, Any, Any, Any]]) -> None:
    """Key by key it equals the oracle, and a reader who looks up only what was marked agrees."""
    marked: set[Prefix] = set()
    local = LocalPrefixes()
    ipcache = Ipcache(local, marked.update)
    claims: dict[tuple[Prefix, Claimant], IpClaim] = {}
    own: set[Prefix] = set()
    reader: dict[Prefix, IpcacheEntry] = {}
    for word, key, owner, claim in steps:
        match word:
            case "put":
                ipcache.put(key, owner, claim)
                claims[key, owner] = claim
            case "drop":
                ipcache.drop(key, owner)
                claims.pop((key, owner), None)
            case "leave":
                ipcache.drop_all(lambda c, name=owner: c.cluster == name)
                claims = {k: v for k, v in claims.items() if k[1].cluster != owner}
            case "ours" if key not in own:
                own.add(key)
                local.add(key)
                ipcache.recheck(EVERYTHING)
            case "not ours" if key in own:
                own.discard(key)
                local.remove(key)
                ipcache.recheck(EVERYTHING)
        for prefix in marked:
            row = ipcache.get(prefix)
            if row is None:
                reader.pop(prefix, None)
            else:
                reader[prefix] = row
        marked.clear()
        oracle = desired_ipcache(((p, o, c) for (p, o), c in claims.items()), own)
        assert dict(ipcache.items()) == oracle
        assert reader == oracle


ADDRESSES = st.sampled_from(
    [parse_address(t) for t in ("10.1.0.1", "10.2.0.1", "10.2.0.2", "10.3.0.1", "fd00::1")]
)
PORTS = st.sampled_from(
    [
        {"http": L4(8080, Protocol.TCP)},
        {"http": L4(8080, Protocol.UDP)},
        {"dns": L4(53, Protocol.UDP), "http": L4(81, Protocol.TCP)},
    ]
)
NAMES = st.sampled_from([ServiceName("a", "x"), ServiceName("b", "x")])
SETTINGS = st.builds(MeshSettings, st.booleans(), st.booleans(), st.sampled_from(list(Affinity)))
VIPS = st.sampled_from([parse_address("10.96.0.1"), parse_address("fd00:96::2")])
BACKENDS = st.dictionaries(
    ADDRESSES,
    st.tuples(PORTS, st.booleans(), st.booleans(), st.booleans()),
    max_size=3,
)
OUR_PREFIXES = st.sampled_from([parse_prefix(t) for t in ("10.2.0.0/24", "10.2.0.1", "fd00::/64")])
STATES = st.sampled_from([BackendState.ACTIVE, BackendState.TERMINATING, BackendState.QUARANTINED])
SHARED_BACKENDS = st.dictionaries(ADDRESSES, st.tuples(PORTS, STATES))
SERVICE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("service"), NAMES, st.none() | st.tuples(VIPS, PORTS, SETTINGS)),
        st.tuples(st.just("backends"), NAMES, st.none() | BACKENDS),
        st.tuples(
            st.just("shared"),
            NAMES,
            st.tuples(CLUSTERS, st.none() | SHARED_BACKENDS, st.booleans()),
        ),
        st.tuples(st.just("leave"), CLUSTERS, st.none()),
        st.tuples(st.just("ours"), OUR_PREFIXES, st.booleans()),
    ),
    max_size=30,
)


class Model:
    """All claims as they stand, for the oracle."""

    def __init__(self) -> None:
        self.services: dict[ServiceName, LocalService] = {}
        self.backends: dict[ServiceName, dict[Any, LocalBackend]] = {}
        self.shared: dict[tuple[ServiceName, ClusterName], SharedService] = {}

    def claims(self) -> dict[ServiceName, ServiceClaims]:
        names = {*self.services, *self.backends, *(n for n, _ in self.shared)}
        return {
            name: ServiceClaims(
                self.services.get(name),
                self.backends.get(name),
                tuple(s for (n, _), s in self.shared.items() if n == name),
            )
            for name in names
        }


@given(SERVICE_STEPS)
@settings(deadline=None)
def test_services_are_a_function_of_their_claims(steps: list[tuple[str, Any, Any]]) -> None:
    """Row by row they equal the oracle, and a reader who looks up only what was marked agrees."""
    marked: set[Frontend] = set()
    local = LocalPrefixes()
    local.add(parse_prefix("10.3.0.0/24"))
    services = Services(local, Selection.RANDOM, marked.add)
    model = Model()
    ours: set[Prefix] = set()
    reader: dict[Frontend, LoadBalancer] = {}
    for word, name, value in steps:
        if word == "ours":
            if value == (name in ours):
                continue
            ours ^= {name}
            (local.add if value else local.remove)(name)
            services.recheck(name)
        else:
            _apply(services, model, word, name, value)
        for frontend in marked:
            row = services.get(frontend)
            if row is None:
                reader.pop(frontend, None)
            else:
                reader[frontend] = row
        marked.clear()
        oracle = naive_table(model.claims(), local, Selection.RANDOM)
        assert dict(services.items()) == oracle
        assert reader == oracle
        assert sentences(services) == {
            name: sorted(said)
            for name, claims in model.claims().items()
            if (said := naive(claims, local, Selection.RANDOM, ClusterName(""))[1])
        }


def sentences(services: Services) -> dict[ServiceName, list[str]]:
    return {name: sorted(said) for name, said in services.problems.current.items()}


def _apply(services: Services, model: Model, word: str, name: Any, value: Any) -> None:
    match word:
        case "service":
            made = None
            model.services.pop(name, None)
            if value is not None:
                vip, ports, mesh = value
                made = LocalService(name, {vip: ports}, mesh=mesh)
                model.services[name] = made
            services.set_service(name, made)
        case "backends":
            found = None
            model.backends.pop(name, None)
            if value is not None:
                found = {a: LocalBackend(a, *rest) for a, rest in value.items()}
                model.backends[name] = found
            services.set_backends(name, found)
        case "shared":
            cluster, backends, shared = value
            record = None
            model.shared.pop((name, cluster), None)
            if backends is not None:
                number = ClusterId(2 if cluster == "beta" else 3)
                ports = {address: found[0] for address, found in backends.items()}
                states = {a: s for a, (_, s) in backends.items() if s is not BackendState.ACTIVE}
                record = SharedService(
                    cluster, number, name, {}, ports, states=states, shared=shared
                )
                model.shared[name, cluster] = record
            services.set_shared(cluster, name, record)
        case _:
            services.drop_cluster(name)
            model.shared = {k: v for k, v in model.shared.items() if k[1] != name}


@given(st.lists(st.tuples(st.booleans(), OWN_PREFIXES | PREFIXES), max_size=20), PREFIXES)
def test_overlap_equals_the_naive_answer(steps: list[tuple[bool, Prefix]], asked: Prefix) -> None:
    """The list of our own prefixes answers as a walk over all of them would."""
    local, own = LocalPrefixes(), []
    for add, prefix in steps:
        if add:
            local.add(prefix)
            own.append(prefix)
        elif prefix in own:
            local.remove(prefix)
            own.remove(prefix)
    assert (local.overlap(asked) is not None) == any(o.overlaps(asked) for o in own)
    address = asked.network_address
    assert local.contains(address) == any(address in o for o in own)
