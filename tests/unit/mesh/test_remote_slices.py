"""Records and slices of a remote cluster: what counts, and that order does not matter."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.remote_slices import Preference, RemoteServices, join
from model.address import parse_address
from model.cluster import Capabilities, ClusterId, ClusterName, SliceExport
from model.service import L4, BackendState, Protocol, ServiceName, SharedService, Zone
from model.shared_slice import SharedEndpoint, SharedSlice, SliceName

BETA, TWO = ClusterName("beta"), ClusterId(2)
WEB = ServiceName("ns", "web")
HTTP = {"http": L4(8080, Protocol.TCP)}


def record(*addresses: str, name: ServiceName = WEB) -> SharedService:
    return SharedService(BETA, TWO, name, backends={parse_address(a): HTTP for a in addresses})


def slice_(
    name: str, *endpoints: SharedEndpoint, service: ServiceName | None = WEB, **ports: int
) -> SharedSlice:
    numbers = {k: L4(v, Protocol.TCP) for k, v in (ports or {"http": 8080}).items()}
    return SharedSlice(BETA, TWO, SliceName("ns", name), service, endpoints, numbers)


def at(text: str, state: BackendState = BackendState.ACTIVE, **more: Any) -> SharedEndpoint:
    return SharedEndpoint(parse_address(text), state, **more)


def test_slices_replace_the_record_of_their_service() -> None:
    """Backends and their states come from the slices; what only a record has stays."""
    said = join(
        record("10.2.0.1", "10.2.0.9"),
        [
            slice_("a", at("10.2.0.1"), at("10.2.0.2", BackendState.TERMINATING)),
            slice_("b", at("10.2.0.3", BackendState.QUARANTINED, hostname="h", zone=Zone("z"))),
        ],
    )
    assert said is not None
    assert {str(a) for a in said.backends} == {"10.2.0.1", "10.2.0.2", "10.2.0.3"}
    assert {str(a): s for a, s in said.states.items()} == {
        "10.2.0.2": BackendState.TERMINATING,
        "10.2.0.3": BackendState.QUARANTINED,
    }
    assert {str(a): h for a, h in said.hostnames.items()} == {"10.2.0.3": "h"}
    assert {str(a): z.name for a, z in said.zones.items()} == {"10.2.0.3": "z"}


def test_an_address_in_two_slices() -> None:
    """It has the ports of both, and the better state: the other copy is stale."""
    said = join(
        None,
        [
            slice_("a", at("10.2.0.1", BackendState.QUARANTINED), http=8080),
            slice_("b", at("10.2.0.1"), admin=9090),
        ],
    )
    assert said is not None
    (ports,) = said.backends.values()
    assert set(ports) == {"http", "admin"}
    assert said.states == {}
    assert said.shared
    assert said.include_external


def test_a_slice_that_goes_gives_the_record_back() -> None:
    """With the last slice the record counts again, and with neither there is no account."""
    services = RemoteServices()
    assert services.record(BETA, WEB, record("10.2.0.1")) == record("10.2.0.1")
    ((name, said),) = services.slice(BETA, SliceName("ns", "a"), slice_("a", at("10.2.0.2")))
    assert name == WEB
    assert said is not None
    assert [str(a) for a in said.backends] == ["10.2.0.2"]
    assert list(services.slice(BETA, SliceName("ns", "a"), None)) == [(WEB, record("10.2.0.1"))]
    assert services.record(BETA, WEB, None) is None
    assert list(services.slice(BETA, SliceName("ns", "a"), None)) == []


def test_a_slice_may_pass_to_another_service() -> None:
    """Both services are told; a slice of no service concerns none."""
    services, name = RemoteServices(), SliceName("ns", "a")
    other = ServiceName("ns", "api")
    list(services.slice(BETA, name, slice_("a", at("10.2.0.2"))))
    told = dict(services.slice(BETA, name, slice_("a", at("10.2.0.2"), service=other)))
    assert told[WEB] is None
    assert told[other] is not None
    told = dict(services.slice(BETA, name, slice_("a", at("10.2.0.2"), service=None)))
    assert told == {other: None}


def test_a_cluster_that_leaves_is_forgotten() -> None:
    """Its records and slices, and no other's."""
    services, gamma = RemoteServices(), ClusterName("gamma")
    for cluster in (BETA, gamma):
        services.record(cluster, WEB, record("10.2.0.1"))
        list(services.slice(cluster, SliceName("ns", "a"), slice_("a", at("10.2.0.2"))))
    services.drop_cluster(BETA)
    assert list(services.slice(BETA, SliceName("ns", "a"), None)) == []
    assert list(services.slice(gamma, SliceName("ns", "a"), None)) == [(WEB, record("10.2.0.1"))]


TRUTH = {
    # preference, what is published → records read, slices read
    (Preference.RECORDS, SliceExport.NONE): (True, False),
    (Preference.RECORDS, SliceExport.BOTH): (True, False),
    (Preference.RECORDS, SliceExport.ONLY): (False, True),
    (Preference.SLICES, SliceExport.NONE): (True, False),
    (Preference.SLICES, SliceExport.BOTH): (True, True),
    (Preference.SLICES, SliceExport.ONLY): (False, True),
    (Preference.ONLY_SLICES, SliceExport.NONE): (False, False),
    (Preference.ONLY_SLICES, SliceExport.BOTH): (False, True),
    (Preference.ONLY_SLICES, SliceExport.ONLY): (False, True),
}


def test_what_is_read_of_whom() -> None:
    """Every pair."""
    assert len(TRUTH) == len(Preference) * len(SliceExport)
    for (preference, export), reads in TRUTH.items():
        assert preference.reads(Capabilities(slices=export)) == reads, (preference, export)


names = st.sampled_from([WEB, ServiceName("ns", "api")])
endpoints = st.builds(
    SharedEndpoint,
    st.integers(1, 4).map(lambda n: parse_address(f"10.2.0.{n}")),
    st.sampled_from([BackendState.ACTIVE, BackendState.TERMINATING, BackendState.QUARANTINED]),
)
changes = st.lists(
    st.tuples(st.sampled_from("ab"), st.none() | st.tuples(names, st.lists(endpoints, max_size=3)))
    | st.tuples(names, st.none() | st.integers(1, 4).map(lambda n: f"10.2.0.{n}")),
    max_size=20,
)


@given(changes)
def test_the_last_account_is_that_of_what_stands(steps: list[Any]) -> None:
    """Whatever came before: the last told account of each service is ``join`` of what there is."""
    services = RemoteServices()
    slices: dict[str, SharedSlice] = {}
    records: dict[ServiceName, SharedService] = {}
    told: dict[ServiceName, SharedService | None] = {}
    for subject, value in steps:
        if isinstance(subject, str):
            made = slice_(subject, *value[1], service=value[0]) if value else None
            slices.pop(subject, None)
            if made:
                slices[subject] = made
            told |= dict(services.slice(BETA, SliceName("ns", subject), made))
        else:
            said = record(value, name=subject) if value else None
            records.pop(subject, None)
            if said:
                records[subject] = said
            told[subject] = services.record(BETA, subject, said)
    for name, account in told.items():
        standing = [s for _, s in sorted(slices.items()) if s.service == name]
        wanted = join(records.get(name), standing)
        assert account == wanted
        if account and wanted:
            assert (account.backends, account.states) == (wanted.backends, wanted.states)
