"""Certificates in Secrets: what is read from them, and what a step writes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from certs import check, rotation
from certs.issue import KeyPair, create_ca, issue
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET, Profile, mesh_profiles
from certs.store import CertificateStore, Place

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class Memory:
    """The Secrets of one cluster, in memory."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, bytes]] = {}

    async def read(self, name: str) -> Mapping[str, bytes]:
        return dict(self.data.get(name, {}))

    async def write(self, name: str, data: Mapping[str, bytes | None]) -> None:
        mine = self.data.setdefault(name, {})
        for key, value in data.items():
            if value is None:
                mine.pop(key, None)
            else:
                mine[key] = value


@pytest.fixture
def secrets() -> Memory:
    found = Memory()
    ca = create_ca(NOW - timedelta(days=10))
    found.data[CA_SECRET] = {"ca.crt": ca.certificate, "ca.key": ca.key}
    for name, profile in mesh_profiles("c1").items():
        found.data[name] = issue(ca, profile, NOW - timedelta(days=10)).secret_data(ca.certificate)
    return found


@pytest.fixture
def store(secrets: Memory) -> CertificateStore:
    return CertificateStore({"c1": Place(secrets, mesh_profiles("c1"))})


async def test_a_fresh_cluster_needs_nothing(store: CertificateStore) -> None:
    """Every certificate is of the authority, as its profile wants it, and long good."""
    (member,) = await store.read()
    assert {s.issuer for s in member.secrets.values()} == {member.authority}
    assert all(s.as_wanted for s in member.secrets.values())
    assert [rotation.due(member, s, NOW) for s in member.secrets] == [""] * 4
    assert (member.next, member.former) == ("", frozenset())


async def test_an_authority_takes_over(store: CertificateStore, secrets: Memory) -> None:
    """Prepared once; when it takes over, the old one's key is gone and its certificate is kept."""
    (member,) = await store.read()
    old = dict(secrets.data[CA_SECRET])
    await store.prepare(member, NOW)
    (prepared,) = await store.read()
    assert prepared.next not in ("", member.authority)
    await store.prepare(prepared, NOW)
    assert (await store.read())[0].next == prepared.next
    await store.carry_out(rotation.Promote("c1"), NOW)
    (after,) = await store.read()
    assert after.authority == prepared.next
    assert after.former == {member.authority}
    assert old["ca.key"] not in secrets.data[CA_SECRET].values()
    both = after.authorities
    await store.carry_out(rotation.Trust("c1", SERVER_SECRET, both), NOW)
    await store.carry_out(rotation.Issue("c1", SERVER_SECRET, ""), NOW)
    data = secrets.data[SERVER_SECRET]
    assert set(check.authorities(data["ca.crt"])) == both
    assert check.problem("x", data["tls.crt"], secrets.data[CA_SECRET]["ca.crt"], NOW) == ""
    await store.carry_out(rotation.Forget("c1"), NOW)
    assert (await store.read())[0].former == frozenset()


async def test_names_that_somebody_added_stay(store: CertificateStore, secrets: Memory) -> None:
    """A renewed certificate has the wanted names and those of its predecessor."""
    ca_data = secrets.data[CA_SECRET]
    wanted = mesh_profiles("c1", extra_names=("mesh.example.org", "192.0.2.7"))[SERVER_SECRET]

    ca = KeyPair(ca_data["ca.crt"], ca_data["ca.key"])
    secrets.data[SERVER_SECRET] = issue(ca, wanted, NOW).secret_data(ca.certificate)
    await store.read()
    await store.carry_out(rotation.Issue("c1", SERVER_SECRET, ""), NOW)
    _, names = check.subject(secrets.data[SERVER_SECRET]["tls.crt"])
    assert set(names) == set(wanted.names)


@pytest.mark.parametrize("how", ["absent", "no key", "other name"])
async def test_what_is_not_as_wanted_is_due(
    store: CertificateStore, secrets: Memory, how: str
) -> None:
    """A certificate that is missing, useless or somebody else's is issued."""
    ca_data = secrets.data[CA_SECRET]
    if how == "absent":
        del secrets.data[REMOTE_SECRET]
    elif how == "no key":
        secrets.data[REMOTE_SECRET]["tls.key"] = b""
    else:
        ca = KeyPair(ca_data["ca.crt"], ca_data["ca.key"])
        pair = issue(ca, Profile("someone", client=True), NOW)
        secrets.data[REMOTE_SECRET] = pair.secret_data(ca.certificate)
    (member,) = await store.read()
    assert rotation.due(member, REMOTE_SECRET, NOW) in (
        "there is none",
        "its names are not those wanted",
    )


async def test_a_cluster_without_an_authority_is_named(
    store: CertificateStore, secrets: Memory
) -> None:
    """The sentence says which cluster and what to do."""
    del secrets.data[CA_SECRET]["ca.key"]
    with pytest.raises(ValueError, match=r"c1: Secret cilium-ca .* clustermesh enable"):
        await store.read()
    secrets.data[CA_SECRET] = {"ca.crt": b"nonsense", "ca.key": b"x"}
    with pytest.raises(ValueError, match=r"c1: Secret cilium-ca: .* is no PEM bundle"):
        await store.read()


async def test_strangers_are_told(store: CertificateStore, secrets: Memory) -> None:
    """An authority of nobody here stays in the bundle, and is listed."""
    other = create_ca(NOW)
    data = secrets.data[SERVER_SECRET]
    data["ca.crt"] = check.bundle(data["ca.crt"], other.certificate)
    members = await store.read()
    assert store.strangers(members) == {"c1": {check.subject_key_id(other.certificate)}}
    assert check.subject_key_id(other.certificate) in rotation.wanted_trust(
        members[0], SERVER_SECRET, members
    )
