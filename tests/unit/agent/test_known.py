"""Identities are shown to the kernel once they are known."""

import pytest

from agent.known import UNKNOWN, KnownEndpoints, KnownIdentities, KnownIpcache
from mesh.guard import LocalPrefixes
from mesh.ipcache import Claimant, Ipcache, IpClaim
from model.address import Prefix, host_prefix, parse_address, parse_prefix
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry, Source

POD = host_prefix(parse_address("10.1.0.5"))
HERE = parse_prefix("10.1.0.0/24")
NODE = parse_address("192.0.2.1")


class World:
    def __init__(self) -> None:
        self.ipcache = Ipcache(LocalPrefixes(), lambda prefixes: None)
        self.known = KnownIdentities()
        self.table = KnownIpcache(self.ipcache, (HERE,), self.known)
        self.told: list[Prefix | int] = []
        self.known.on_prefix = self.told.append
        self.known.on_endpoint = self.told.append

    def claim(self, prefix: str, identity: int, source: Source = Source.CUSTOM_RESOURCE) -> Prefix:
        row = IpcacheEntry(NumericIdentity(identity), None if source is Source.GENERATED else NODE)
        self.ipcache.put(parse_prefix(prefix), Claimant(source), IpClaim(row))
        return parse_prefix(prefix)

    def shown(self, prefix: Prefix) -> int | None:
        row = self.table.get(prefix)
        assert dict(self.table.items()).get(prefix) == row
        return None if row is None else row.identity


def test_everybody_passes_before_the_first_rows() -> None:
    """A start takes nothing back."""
    world = World()
    assert world.shown(world.claim("10.2.0.5/32", 300)) == 300


def test_an_address_waits_for_its_identity() -> None:
    """Shown as nobody's until rows know it; then whoever waits is told, once."""
    world = World()
    world.known.add({1})
    pod = world.claim("10.2.0.5/32", 300)
    assert world.shown(pod) == UNKNOWN
    assert world.known.waiting() == 1
    world.known.add({300, 301})
    assert world.told == [pod]
    assert world.shown(pod) == 300
    world.known.add({300})
    assert world.told == [pod]
    world.known.discard(300)
    assert world.shown(pod) == UNKNOWN


def test_an_endpoint_waits_too() -> None:
    world = World()
    world.known.add({1})
    row = LocalEndpoint(EndpointId(7), NumericIdentity(300), 3, "lxc1", b"", b"", ())
    table = KnownEndpoints({row.id: row}, world.known)
    found = table.get(row.id)
    assert found is not None
    assert found.identity == UNKNOWN
    world.known.add({300})
    assert world.told == [7]
    assert dict(table.items()) == {7: row}


@pytest.mark.parametrize(
    ("prefix", "is_there"),
    [
        ("10.2.0.0/25", False),  # in a pod CIDR of another node
        ("10.2.0.9/32", False),
        ("10.1.0.128/25", False),  # in ours
        ("10.0.0.0/8", True),  # around them
        ("0.0.0.0/0", True),
        ("192.0.2.0/24", True),
    ],
)
def test_a_prefix_of_a_rule_is_never_about_pods(prefix: str, is_there: bool) -> None:
    world = World()
    world.claim("10.2.0.0/24", 0)
    found = world.claim(prefix, 1 << 24 | 5, Source.GENERATED)
    assert (world.shown(found) is not None) is is_there
