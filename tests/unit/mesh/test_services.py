"""The rules by which a global service is put together, one test per sentence."""

import pytest

from mesh.guard import LocalPrefixes
from mesh.service_table import Services
from model.address import Address, parse_address, parse_prefix
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
from tests.support.naive_services import ServiceClaims, merge

NAME = ServiceName("shop", "rebel-base")
VIP = parse_address("10.96.0.10")
HTTP = {"http": L4(80, Protocol.TCP)}
TARGET = {"http": L4(8080, Protocol.TCP)}
FRONT = Frontend(VIP, 80, Protocol.TCP)


def local(mesh: MeshSettings | None = None, ports: dict[str, L4] | None = None) -> LocalService:
    return LocalService(NAME, {VIP: ports or HTTP}, mesh=mesh or MeshSettings(is_global=True))


def mine(
    *addresses: str, ports: dict[str, L4] | None = None, **state: bool
) -> dict[Address, LocalBackend]:
    return {
        parse_address(a): LocalBackend(
            parse_address(a), TARGET if ports is None else ports, **state
        )
        for a in addresses
    }


def theirs(
    *addresses: str,
    cluster: str = "beta",
    number: int = 2,
    ports: dict[str, L4] | None = None,
    shared: bool = True,
    include_external: bool = True,
) -> SharedService:
    backends = {parse_address(a): TARGET if ports is None else ports for a in addresses}
    return SharedService(
        ClusterName(cluster),
        ClusterId(number),
        NAME,
        {parse_address("10.97.0.1"): HTTP},
        backends,
        shared=shared,
        include_external=include_external,
    )


def merged(claims: ServiceClaims, own: str = "") -> tuple[LoadBalancer | None, tuple[str, ...]]:
    prefixes = LocalPrefixes()
    if own:
        prefixes.add(parse_prefix(own))
    table, sentences = merge(claims, prefixes, Selection.RANDOM, ClusterName("alpha"))
    return table.get(FRONT), sentences


def chosen(claims: ServiceClaims) -> list[str]:
    """Addresses new connections may take."""
    row, _ = merged(claims)
    assert row is not None
    return [str(b.address) for b in row.backends[: row.selectable]]


def kept(claims: ServiceClaims) -> list[str]:
    """Addresses that only keep their connections."""
    row, _ = merged(claims)
    assert row is not None
    return [str(b.address) for b in row.backends[row.selectable :]]


@pytest.mark.parametrize(
    ("ours_global", "published", "shared", "expected"),
    [
        (False, True, True, ["10.1.0.1"]),
        (True, False, True, ["10.1.0.1"]),
        (True, True, False, ["10.1.0.1"]),
        (True, True, True, ["10.1.0.1", "10.2.0.1"]),
    ],
)
def test_truth_table(ours_global: bool, published: bool, shared: bool, expected: list[str]) -> None:
    """We use a cluster's backends only if our service is global and its service is shared."""
    peers = (theirs("10.2.0.1", shared=shared),) if published else ()
    service = local(MeshSettings(is_global=ours_global))
    assert chosen(ServiceClaims(service, mine("10.1.0.1"), peers)) == expected


def test_our_own_shared_does_not_matter_to_us() -> None:
    """`global: true, shared: false` consumes and does not offer."""
    service = local(MeshSettings(is_global=True, shared=False))
    assert chosen(ServiceClaims(service, {}, (theirs("10.2.0.1"),))) == ["10.2.0.1"]


def test_no_local_service_no_frontend() -> None:
    """A remote service without a twin here has no effect; nor has a headless one."""
    assert merged(ServiceClaims(None, None, (theirs("10.2.0.1"),))) == (None, ())
    headless = LocalService(NAME, {}, headless=True, mesh=MeshSettings(is_global=True))
    assert merged(ServiceClaims(headless, mine("10.1.0.1"), ())) == (None, ())


def test_frontends_are_the_consumers_own() -> None:
    """Of a peer only backends are taken, never its cluster address or its port."""
    table, _ = merge(
        ServiceClaims(local(), {}, (theirs("10.2.0.1"),)),
        LocalPrefixes(),
        Selection.RANDOM,
        ClusterName("alpha"),
    )
    assert list(table) == [FRONT]


def test_no_backends_is_a_row_without_choice() -> None:
    """The frontend exists, so that clients are refused and not sent elsewhere."""
    row, _ = merged(ServiceClaims(local(), None, ()))
    assert row is not None
    assert (row.backends, row.selectable) == ((), 0)


AFFINITIES = [
    (Affinity.NONE, True, True, ["10.1.0.1", "10.2.0.1"]),
    (Affinity.LOCAL, True, True, ["10.1.0.1"]),
    (Affinity.REMOTE, True, True, ["10.2.0.1"]),
    (Affinity.LOCAL, False, True, ["10.2.0.1"]),
    (Affinity.REMOTE, True, False, ["10.1.0.1"]),
    (Affinity.LOCAL, False, False, []),
    (Affinity.REMOTE, False, True, ["10.2.0.1"]),
]


@pytest.mark.parametrize(("affinity", "local_ready", "remote_there", "expected"), AFFINITIES)
def test_affinity(
    affinity: Affinity, local_ready: bool, remote_there: bool, expected: list[str]
) -> None:
    """Only preferred backends while one of them is active, else all active ones."""
    service = local(MeshSettings(is_global=True, affinity=affinity))
    peers = (theirs("10.2.0.1"),) if remote_there else ()
    claims = ServiceClaims(service, mine("10.1.0.1", ready=local_ready, serving=local_ready), peers)
    assert chosen(claims) == expected


def test_affinity_means_nothing_to_a_service_of_one_cluster() -> None:
    """Without `global` the annotation is not looked at."""
    service = local(MeshSettings(is_global=False, affinity=Affinity.REMOTE))
    assert chosen(ServiceClaims(service, mine("10.1.0.1"), ())) == ["10.1.0.1"]


def test_backends_not_preferred_keep_their_connections() -> None:
    """They stay in the row behind those that may be chosen."""
    service = local(MeshSettings(is_global=True, affinity=Affinity.LOCAL))
    claims = ServiceClaims(service, mine("10.1.0.1"), (theirs("10.2.0.1"),))
    assert kept(claims) == ["10.2.0.1"]
    row, _ = merged(claims)
    assert row is not None
    assert [b.preferred for b in row.backends] == [True, False]


def test_unready_backends_keep_their_connections() -> None:
    """An endpoint that is not ready is not chosen, and its flows are not cut."""
    claims = ServiceClaims(local(), {**mine("10.1.0.1"), **mine("10.1.0.2", ready=False)}, ())
    assert (chosen(claims), kept(claims)) == (["10.1.0.1"], ["10.1.0.2"])


def test_terminating_backends_are_the_last_resort() -> None:
    """Not while another is active; yes when none is and they still answer; never when they do
    not."""
    ending = mine("10.1.0.2", ready=False, serving=True, terminating=True)
    dead = mine("10.1.0.3", ready=False, serving=False, terminating=True)
    both = ServiceClaims(local(), {**mine("10.1.0.1"), **ending, **dead}, ())
    assert (chosen(both), kept(both)) == (["10.1.0.1"], ["10.1.0.2", "10.1.0.3"])
    alone = ServiceClaims(local(), {**ending, **dead}, ())
    assert (chosen(alone), kept(alone)) == (["10.1.0.2"], ["10.1.0.3"])
    remote = ServiceClaims(
        local(MeshSettings(is_global=True, affinity=Affinity.LOCAL)), ending, (theirs("10.2.0.1"),)
    )
    assert chosen(remote) == ["10.2.0.1"], "an active remote one is better"


def test_ports_meet_by_name_and_protocol() -> None:
    """Another port name or another protocol under the name is no backend of this frontend."""
    other_name = theirs("10.2.0.1", ports={"web": L4(8080, Protocol.TCP)})
    other_protocol = theirs("10.3.0.1", cluster="gamma", ports={"http": L4(8080, Protocol.UDP)})
    claims = ServiceClaims(local(), mine("10.1.0.1"), (other_name, other_protocol))
    assert chosen(claims) == ["10.1.0.1"]
    unnamed = {"": L4(80, Protocol.TCP)}
    target = {"": L4(9000, Protocol.TCP)}
    claims = ServiceClaims(
        local(ports=unnamed), mine("10.1.0.1", ports=target), (theirs("10.2.0.1", ports=target),)
    )
    assert chosen(claims) == ["10.1.0.1", "10.2.0.1"]


def test_families_do_not_mix() -> None:
    """An IPv6 backend is no backend of an IPv4 frontend."""
    assert chosen(ServiceClaims(local(), {}, (theirs("fd00::1", "10.2.0.1"),))) == ["10.2.0.1"]


def test_one_address_twice() -> None:
    """Ours wins over a peer's, the cluster whose name comes first over another; both are told."""
    claims = ServiceClaims(
        local(),
        mine("10.1.0.1"),
        (
            theirs("10.3.0.1", "10.9.0.9", cluster="gamma", number=3),
            theirs("10.1.0.1", "10.9.0.9", cluster="beta"),
        ),
    )
    row, sentences = merged(claims)
    assert row is not None
    owners = {str(b.address): b.cluster for b in row.backends}
    assert owners == {"10.1.0.1": "", "10.9.0.9": "beta", "10.3.0.1": "gamma"}
    assert len(sentences) == 2
    assert all("do not overlap" in s and "shop/rebel-base" in s for s in sentences)


def test_a_peer_has_no_say_in_our_prefixes() -> None:
    """A remote backend inside our pod CIDRs is refused even if nobody has the address."""
    row, sentences = merged(ServiceClaims(local(), {}, (theirs("10.1.0.200"),)), "10.1.0.0/24")
    assert row is not None
    assert row.backends == ()
    assert "10.1.0.200" in sentences[0]


def test_settings_of_the_service_reach_the_row() -> None:
    """Selection and session affinity are the consumer's."""
    service = LocalService(NAME, {VIP: HTTP}, selection="maglev", session_affinity_s=60)
    row, _ = merged(ServiceClaims(service, mine("10.1.0.1"), ()))
    assert row is not None
    assert (row.selection, row.affinity_timeout_s) == (Selection.MAGLEV, 60)


def _services() -> tuple[Services, list[Frontend]]:
    told: list[Frontend] = []
    return Services(LocalPrefixes(), Selection.RANDOM, told.append), told


def test_a_change_without_effect_is_not_told() -> None:
    """The same claims again mark nothing."""
    services, told = _services()
    services.set_service(NAME, local())
    services.set_backends(NAME, mine("10.1.0.1"))
    told.clear()
    services.set_backends(NAME, mine("10.1.0.1"))
    services.set_shared(ClusterName("beta"), NAME, theirs("10.2.0.1", shared=False))
    assert told == []


def test_a_service_that_comes_back_finds_its_peers() -> None:
    """Deleting our service keeps what peers said; making it again brings their backends back."""
    services, _ = _services()
    services.set_service(NAME, local())
    services.set_shared(ClusterName("beta"), NAME, theirs("10.2.0.1"))
    services.set_service(NAME, None)
    assert services.get(FRONT) is None
    services.set_service(NAME, local())
    row = services.get(FRONT)
    assert row is not None
    assert [str(b.address) for b in row.backends] == ["10.2.0.1"]


def test_an_address_that_moves_between_services() -> None:
    """While two services have one frontend the first by name has it; then the one that is left."""
    services, _ = _services()
    other = ServiceName("shop", "aaa")
    services.set_service(NAME, local())
    services.set_service(other, LocalService(other, {VIP: HTTP}))
    assert services.get(FRONT) is not None
    assert services.get(FRONT).name == other  # type: ignore[union-attr]
    services.set_service(other, None)
    assert services.get(FRONT).name == NAME  # type: ignore[union-attr]


def test_a_cluster_out_of_reach_keeps_its_connections_only() -> None:
    """Down: nothing new while another has a backend. Returning: a part. Only frontends that the
    cluster has a part in are told."""
    services, told = _services()
    other = ServiceName("shop", "other")
    services.set_service(other, LocalService(other, {VIP.offset(1): HTTP}))
    services.set_service(NAME, local())
    services.set_shared(ClusterName("beta"), NAME, theirs("10.2.0.1"))

    def row() -> tuple[list[str], int, tuple[int, ...]]:
        found = services.get(FRONT)
        assert found is not None
        return [str(b.address) for b in found.backends], found.selectable, found.weights

    services.set_share(ClusterName("beta"), 0)
    assert row() == (["10.2.0.1"], 1, ())  # better than nothing
    services.set_backends(NAME, mine("10.1.0.1"))
    told.clear()
    assert row() == (["10.1.0.1", "10.2.0.1"], 1, ())
    services.set_share(ClusterName("beta"), 10)
    assert told == [FRONT]
    assert row() == (["10.1.0.1", "10.2.0.1"], 2, (19, 1))  # a tenth of its half
    services.set_share(ClusterName("beta"), 100)
    assert row() == (["10.1.0.1", "10.2.0.1"], 2, ())
    told.clear()
    services.set_share(ClusterName("beta"), 100)
    assert told == []


def test_last_words_count_until_the_cluster_speaks() -> None:
    """Remote backends found in the kernel stay in rows of global services until ``forget``."""
    services, told = _services()
    left = Backend(
        parse_address("10.2.0.9"), 8080, Protocol.TCP, BackendState.ACTIVE, cluster_id=ClusterId(2)
    )
    services.restore([(FRONT, LoadBalancer(FRONT, NAME, (left,), 1))])
    assert services.restored_clusters() == {2}
    services.set_service(NAME, local(MeshSettings(is_global=False)))
    row = services.get(FRONT)
    assert row is not None
    assert row.backends == ()
    services.set_service(NAME, local())
    row = services.get(FRONT)
    assert row is not None
    assert [str(b.address) for b in row.backends] == ["10.2.0.9"]
    services.set_shared(ClusterName("beta"), NAME, theirs("10.2.0.1"))
    told.clear()
    services.forget(ClusterId(2))
    assert told == [FRONT]
    row = services.get(FRONT)
    assert row is not None
    assert [str(b.address) for b in row.backends] == ["10.2.0.1"]


def test_a_cluster_that_left_is_not_judged_again() -> None:
    """A service known from a peer only is forgotten with it, its addresses too."""
    services, told = _services()
    services.set_shared(ClusterName("beta"), NAME, theirs("10.2.0.1"))
    services.set_shared(ClusterName("gamma"), NAME, theirs("10.2.0.1", cluster="gamma", number=3))
    services.drop_cluster(ClusterName("beta"))
    services.recheck(parse_prefix("10.2.0.0/24"))
    services.drop_cluster(ClusterName("gamma"))
    services.recheck(parse_prefix("10.2.0.0/24"))
    assert told == []
    services.set_service(NAME, local())
    services.set_shared(ClusterName("beta"), NAME, theirs("10.2.0.1"))
    told.clear()
    services.recheck(parse_prefix("10.2.0.0/24"))
    assert services.get(FRONT) is not None
