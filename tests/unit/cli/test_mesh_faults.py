"""The doctor of the mesh: each fault alone gives its finding and no other; a healthy mesh none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from cli import mesh_doctor, mesh_findings
from cli.mesh_examined import AgentSeen, Examined
from cli.mesh_faults import faults
from cli.mesh_findings import Finding
from model.address import parse_address, parse_prefix
from tests.unit.cli.test_mesh_checks import (
    CLIENT,
    NOW,
    OTHER_CA,
    OWN_CA,
    certificate,
    facts,
)

Change = Callable[[Examined], Examined]


def remote(name: str, number: int, **changed: Any) -> dict[str, Any]:
    """What an agent says of a cluster that it is connected to."""
    synced = dict.fromkeys(("nodes", "endpoints", "identities", "services"), True)
    config = {"required": True, "retrieved": True, "cluster-id": number, "sync-canaries": True}
    return {
        "name": name,
        "connected": True,
        "ready": True,
        "synced": synced,
        "config": config,
    } | changed


def agent(other: str, number: int, node: str, **changed: Any) -> AgentSeen:
    status = {
        "cilium": {"state": "Ok", "msg": "1.4.2 (v1.4.2)"},
        "cluster-mesh": {"clusters": [remote(other, number)]},
    }
    return replace(AgentSeen(f"cilium-{node}", node, "", status, 1500, 0.2, ()), **changed)


def side(name: str, number: int, other: str, other_number: int) -> Examined:
    """A cluster connected to the other, all well."""
    return Examined(
        facts=facts(name, number, connected={other: other_number}),
        settings={"routing-mode": "tunnel", "enable-wireguard": "false"},
        node_addresses={f"{name}{i}": parse_address(f"192.0.2.{number * 10 + i}") for i in (1, 2)},
        common=frozenset({other}),
        service_cidrs=(parse_prefix("10.96.0.0/16"),),
        service_addresses={"default/kubernetes": parse_address("10.96.0.1")},
        skew_s=0.4,
        agents=tuple(agent(other, other_number, f"{name}{i}") for i in (1, 2)),
        agents_wanted=2,
    )


def pair() -> list[Examined]:
    return [side("a", 1, "b", 2), side("b", 2, "a", 1)]


def apart() -> list[Examined]:
    """The same before they are connected."""
    return [replace(s, facts=replace(s.facts, connected={})) for s in pair()]


def of_facts(**changed: Any) -> Change:
    return lambda s: replace(s, facts=replace(s.facts, **changed))


def settings(**changed: str) -> Change:
    given = {key.replace("_", "-"): value for key, value in changed.items()}
    return lambda s: replace(s, settings={**s.settings, **given})


def first_agent(**changed: Any) -> Change:
    return lambda s: replace(s, agents=(replace(s.agents[0], **changed), *s.agents[1:]))


def all_agents(**changed: Any) -> Change:
    return lambda s: replace(s, agents=tuple(replace(a, **changed) for a in s.agents))


def says(**changed: Any) -> Change:
    """The first agent of ``b`` says this of ``a``."""
    status = {"cluster-mesh": {"clusters": [remote("a", 1, **changed)]}}
    return first_agent(status=status)


def version(text: str) -> Change:
    def change(s: Examined) -> Examined:
        status = {**s.agents[0].status, "cilium": {"msg": f"{text} (v{text})"}}
        return all_agents(status=status)(s)

    return change


def ends(name: str, days: float) -> Any:
    """A certificate that ends in so many days."""
    profile = mesh_profiles("x")[name]
    begun = NOW - timedelta(days=profile.validity_days - days)
    return issue(OWN_CA, profile, begun).secret_data(OWN_CA.certificate)


def test_a_healthy_pair_gives_no_finding() -> None:
    """Neither connected nor before."""
    assert faults(pair(), NOW) == []
    assert faults(apart(), NOW) == []


def test_a_healthy_cluster_alone_gives_no_finding() -> None:
    assert faults(pair()[:1], NOW) == []


def test_native_routing_must_know_of_all_pods() -> None:
    """A warning for each cluster whose prefix is too small; none where there is no prefix."""
    native = settings(routing_mode="native")
    small = settings(ipv4_native_routing_cidr="10.2.0.0/16")
    a, b = pair()
    assert faults([native(a), native(b)], NOW) == []
    (found,) = faults([native(a), small(native(b))], NOW)
    assert (found.check, found.blocking) == ("native-routing-cidr", False)
    assert "cluster b: ipv4-native-routing-cidr 10.2.0.0/16 does not hold pods" in found.found
    assert "10.1.0.0/16 of cluster a" in found.found
    assert faults([a, small(b)], NOW) == []


def test_addresses_of_ipv6() -> None:
    """Pods, nodes and services of two clusters of both families: each that overlaps is found."""

    def dual(s: Examined, number: int) -> Examined:
        pods = (*s.facts.pod_cidrs, parse_prefix(f"fd00:10:{number}::/48"))
        nodes = s.node_addresses | {"six": parse_address(f"fd00:20::{number}")}
        services = (*s.service_cidrs, parse_prefix("fd00:30::/112"))
        some = of_facts(pod_cidrs=pods)(settings(enable_ipv6="true")(s))
        return replace(some, node_addresses=nodes, service_cidrs=services)

    a, b = (dual(s, number) for number, s in enumerate(pair(), 1))
    assert faults([a, b], NOW) == []
    ours = parse_address("fd00:10:1::7")
    planted = {
        "pod-cidr": of_facts(pod_cidrs=(*b.facts.pod_cidrs, parse_prefix("fd00:10:1:8::/64")))(b),
        "node-address": replace(b, node_addresses={"b1": ours}),
        "service-cidr": replace(b, service_addresses={"x/y": ours}),
    }
    for check, changed in planted.items():
        (found,) = faults([a, changed], NOW)
        assert (found.check, found.blocking) == (check, True)
        assert "fd00:10:1:" in found.found
    wide = replace(b, service_cidrs=(parse_prefix("fd00:10::/32"),))
    (found,) = faults([a, wide], NOW)
    assert (found.check, found.blocking) == ("service-cidr", False)


PLANTED: list[tuple[str, Change, bool, tuple[str, ...]]] = [
    ("tunnel-protocol", of_facts(tunnel="geneve"), True, ("'vxlan' and 'geneve'",)),
    ("max-connected-clusters", of_facts(max_connected=511), True, ("255 and 511",)),
    (
        "pod-cidr",
        of_facts(pod_cidrs=(parse_prefix("10.1.8.0/24"),)),
        True,
        ("10.1.0.0/16", "10.1.8.0/24", "overlap"),
    ),
    ("routing-mode", settings(routing_mode="native"), True, ("'tunnel' and 'native'",)),
    ("tunnel-port", settings(tunnel_port="4789"), True, ("'8472' and '4789'",)),
    ("encryption", settings(enable_wireguard="true"), True, ("none and WireGuard",)),
    ("encryption", settings(enable_ipsec="true"), True, ("none and IPsec",)),
    (
        "node-address",
        lambda s: replace(s, node_addresses={"b1": parse_address("192.0.2.11")}),
        True,
        ("both have a node of address 192.0.2.11",),
    ),
    (
        "node-address",
        lambda s: replace(s, node_addresses={"b1": parse_address("10.1.3.3")}),
        True,
        ("node b1 has address 10.1.3.3", "10.1.0.0/16 of cluster a"),
    ),
    (
        "service-cidr",
        lambda s: replace(s, service_addresses={"x/y": parse_address("10.1.3.4")}),
        True,
        ("Service x/y has address 10.1.3.4", "10.1.0.0/16 of cluster a"),
    ),
    (
        "service-cidr",
        lambda s: replace(s, service_cidrs=(parse_prefix("10.0.0.0/12"),)),
        False,
        ("10.0.0.0/12 of cluster b", "10.1.0.0/16 of cluster a", "overlap"),
    ),
    ("enable-ipv6", settings(enable_ipv6="true"), False, ("only b has IPv6", "in both")),
    ("mtu", all_agents(device_mtu=1400), False, ("1500 and 1400", "--set mtu=1400")),
    ("version", version("1.5.0"), False, ("1.4.2 and 1.5.0", "upgrade cluster a")),
    ("version", version("1.2.9"), True, ("1.2.9 and 1.4.2", "upgrade cluster b")),
    ("version", version("2.4.0"), True, ("1.4.2 and 2.4.0",)),
    ("clock", lambda s: replace(s, skew_s=60.0), False, ("API server of cluster b", "60 s")),
    ("clock", lambda s: replace(s, skew_s=4000.0), True, ("4000 s", "NTP")),
    ("clock", first_agent(skew_s=-45.0), False, ("node b1 of cluster b", "45 s behind")),
    ("certificate", of_facts(server=ends(SERVER_SECRET, 12)), False, ("12 days", "rotate")),
    ("certificate", of_facts(client=ends(REMOTE_SECRET, 29)), False, ("29 days",)),
    (
        "certificate",
        of_facts(server=ends(SERVER_SECRET, -1)),
        True,
        ("expired on", "clustermesh enable"),
    ),
    ("agents", first_agent(error="no such container"), True, ("1 of 2", "node b1")),
    ("agents", lambda s: replace(s, agents_wanted=3), False, ("2 of 3 agents run",)),
    (
        "connection",
        says(connected=False, ready=False, status="192.0.2.1:32379 does not answer: refused"),
        True,
        ("1 of 2 agents", "cluster a", "refused", "--force"),
    ),
    (
        "connection",
        says(ready=False, synced={"nodes": True}),
        True,
        ("synchronization in progress for endpoints", "--wait"),
    ),
    (
        "connection",
        says(connected=False, ready=False, status="gone", data={"revoked": True}),
        True,
        ("its backends are taken back",),
    ),
    (
        "capability",
        says(config={"retrieved": True, "cluster-id": 1, "sync-canaries": False}),
        False,
        ("syncedCanaries", "upgrade the mesh store of a"),
    ),
    (
        "cluster-id",
        says(config={"retrieved": True, "cluster-id": 9, "sync-canaries": True}),
        True,
        ("to a with ID 1, it now has 9", "disconnect and connect"),
    ),
    (
        "rejected-records",
        says(**{"num-rejected": 3, "last-rejected": "node x claims 10.9.0.0/24"}),
        False,
        ("refuses 3 records of cluster a", "claims 10.9.0.0/24"),
    ),
    (
        "kvstoremesh",
        lambda s: replace(
            s,
            copies=(
                remote("a", 1, connected=False, ready=False, status="timed out")
                | {"age-seconds": 77},
            ),
        ),
        True,
        ("KVStoreMesh", "timed out", "77 s old"),
    ),
    ("one-way", of_facts(connected={}), False, ("a reads cluster b", "does not read a")),
    (
        "authority",
        of_facts(
            ca=OTHER_CA.certificate,
            server=certificate(OTHER_CA, SERVER_SECRET, OTHER_CA.certificate + OWN_CA.certificate),
            client=CLIENT,
        ),
        True,
        ("cluster a does not trust", "server certificate of cluster b"),
    ),
]


@pytest.mark.parametrize(
    ("check", "plant", "blocking", "words"),
    PLANTED,
    ids=[f"{n}-{check}" for n, (check, *_) in enumerate(PLANTED)],
)
def test_a_planted_fault_is_the_only_finding(
    check: str, plant: Change, blocking: bool, words: tuple[str, ...]
) -> None:
    """In cluster ``b`` of a healthy, connected pair."""
    a, b = pair()
    found = faults([a, plant(b)], NOW)
    assert [f.check for f in found] == [check], found
    assert found[0].blocking is blocking
    assert all(word in str(found[0]) for word in words), str(found[0])
    assert found[0].remedy
    assert "\n" not in str(found[0])


def test_duplicates() -> None:
    """Two clusters of one name or one number."""
    a, b = apart()
    assert [f.check for f in faults([a, of_facts(id=1)(b)], NOW)] == ["cluster-id"]
    assert [f.check for f in faults([a, of_facts(name="a")(b)], NOW)] == ["cluster-name"]


def test_number_of_a_connected_third() -> None:
    a, b = apart()
    found = faults([of_facts(connected={"oslo": 2})(replace(a, agents=())), b], NOW)
    assert "cluster-id" in [f.check for f in found]


def test_a_way_that_is_shut_before_connecting() -> None:
    """The nodes of ``a`` tried the store of ``b``; after connecting agents say it themselves."""
    tried = {"cluster": "", "endpoint": "192.0.2.2:32379", "error": "Connection refused"}
    shut = first_agent(endpoints=(tried,))
    a, b = apart()
    found = faults([shut(a), b], NOW)
    assert [f.check for f in found] == ["reachability"]
    assert "1 of 1 nodes of cluster a" in found[0].found
    assert "Connection refused" in found[0].found
    a, b = pair()
    assert faults([shut(a), b], NOW) == []


def test_what_a_way_says_is_told_for_a_lost_connection() -> None:
    """A failed handshake has its reason in the way, not in the state."""
    way = {"cluster": "b", "endpoint": "192.0.2.2:32379", "error": "the certificate has expired"}
    status = {"cluster-mesh": {"clusters": [remote("b", 2, connected=False, ready=False)]}}
    a, b = pair()
    found = faults([all_agents(status=status, endpoints=(way,))(a), b], NOW)
    assert [f.check for f in found] == ["connection"]
    assert "2 of 2 agents" in found[0].found
    assert "the certificate has expired" in found[0].found
    assert "certs rotate" in found[0].remedy


def test_a_certificate_that_is_still_to_come_elsewhere() -> None:
    """Issued just now, while the other cluster's clock is an hour behind."""
    fresh = certificate(OWN_CA, SERVER_SECRET, OWN_CA.certificate, NOW)
    a, b = apart()
    found = faults([replace(a, skew_s=-3600.0), of_facts(server=fresh)(b)], NOW)
    assert {f.check for f in found} == {"clock"}
    assert any("still to come by a clock of cluster a" in f.found for f in found)


def test_mtu_differs_within_a_cluster() -> None:
    a, _ = pair()
    found = faults([first_agent(device_mtu=9000)(a)], NOW)
    assert [f.check for f in found] == ["mtu"]
    assert "9000 on some nodes and 1500" in found[0].found


def joined() -> list[Examined]:
    """By a token: each has an authority of its own, and signed a certificate for the other."""
    a, b = pair()
    b = of_facts(
        ca=OTHER_CA.certificate,
        server=certificate(OTHER_CA, SERVER_SECRET, OTHER_CA.certificate),
        client=certificate(OTHER_CA, REMOTE_SECRET, OTHER_CA.certificate),
    )(b)
    return [
        of_facts(own={other.name: credentials(ca)})(replace(side, common=frozenset()))
        for side, other, ca in ((a, b, OTHER_CA), (b, a, OWN_CA))
    ]


def credentials(ca: KeyPair, trust: bytes = b"") -> dict[str, bytes]:
    """As they lie beside a connection."""
    issued = certificate(ca, REMOTE_SECRET, trust or ca.certificate)
    return {"ca": issued["ca.crt"], "crt": issued["tls.crt"]}


def test_clusters_joined_by_a_token_need_no_common_authority() -> None:
    """Nobody copied a key, neither trusts the other's authority for anything else: all is well."""
    a, b = joined()
    assert faults([a, b], NOW) == []
    assert faults([a], NOW) == []
    same = of_facts(own={})(replace(a, common=frozenset({"b"})))
    assert {f.check for f in faults([same, b], NOW)} == {"authority"}


@pytest.mark.parametrize(
    ("held", "check", "words"),
    [
        (credentials(OWN_CA), "authority", "cluster b does not trust the authority that signed"),
        (
            {"ca": OWN_CA.certificate, "crt": credentials(OTHER_CA)["crt"]},
            "certificate",
            "that its ca.crt does not hold",
        ),
        ({"ca": OTHER_CA.certificate, "crt": b""}, "certificate", "not a PEM certificate"),
    ],
)
def test_what_a_joined_cluster_holds_is_looked_at(
    held: dict[str, bytes], check: str, words: str
) -> None:
    """What does not fit is found before agents lose the other's store, and joining mends it."""
    a, b = joined()
    found = faults([of_facts(own={"b": held})(a), b], NOW)
    assert check in [f.check for f in found]
    assert any(words in f.found for f in found), found
    assert all(f.blocking for f in found)
    for fault in found:
        assert "`isthmus clustermesh grant --name a` in cluster b" in fault.remedy
        assert "`isthmus clustermesh join --replace` in cluster a" in fault.remedy


def test_a_joined_clusters_certificate_that_ends_soon() -> None:
    """Nobody renews it: a warning a month before. One that an object brought is the object's."""
    a, b = joined()
    begun = NOW - timedelta(days=mesh_profiles("b")[REMOTE_SECRET].validity_days - 9)
    pair_ = issue(OTHER_CA, mesh_profiles("b")[REMOTE_SECRET], begun)
    a = of_facts(own={"b": {"ca": OTHER_CA.certificate, "crt": pair_.certificate}})(a)
    (found,) = faults([a, b], NOW)
    assert (found.check, found.blocking) == ("certificate", False)
    assert "for the store of cluster b expires in 9 days" in found.found
    (found,) = faults([of_facts(declared={"b": "oslo"})(a), b], NOW)
    assert found.remedy == "put a new one into the Secret that ClusterMeshPeer oslo names"


def test_table_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn on a terminal, plain columns for a pipe; every cell is there."""
    found = [Finding("mtu", ("a",), "pods differ", "set mtu", False), Finding("x", (), "f", "r")]
    mesh_doctor.show(found, terminal=False)
    plain = capsys.readouterr().out
    mesh_doctor.show(found, terminal=True)
    drawn = capsys.readouterr().out
    assert plain.splitlines()[0].split() == ["Check", "Result", "Found", "Remedy"]
    assert "─" not in plain
    assert "─" in drawn or "━" in drawn
    for cell in ("mtu", "warning", "pods differ", "set mtu", "failed"):
        assert cell in plain
        assert cell in drawn


def test_an_expired_authority() -> None:
    """Nothing it signed is believed any longer."""
    old = create_ca(NOW - timedelta(days=365 * 30))
    a, _ = apart()
    found = faults([of_facts(ca=old.certificate)(a)], NOW)
    assert [(f.check, f.blocking) for f in found] == [("certificate", True)]
    assert "rotate --ca" in found[0].remedy


def test_blocking_findings_come_first_and_once() -> None:
    good, bad = Finding("x", (), "w", "r", False), Finding("y", (), "f", "r")
    assert mesh_findings.ordered([good, bad, good]) == [bad, good]


def test_summary_and_json() -> None:
    """What a person reads last, and what a script reads."""
    good, bad = Finding("x", ("a",), "w", "r", False), Finding("y", ("a", "b"), "f", "r")
    assert mesh_findings.summary([], ["a", "b"]) == "✅ Nothing was found in a, b"
    assert "nothing that stops" in mesh_findings.summary([good], ["a"])
    assert mesh_findings.summary([bad, good], ["a"]) == "❌ 1 fault and 1 warning in a"
    body = mesh_findings.as_json([bad], ["a", "b"])
    assert body["blocked"] is True
    assert body["findings"][0] == {
        "check": "y",
        "result": "failed",
        "blocking": True,
        "clusters": ["a", "b"],
        "found": "f",
        "remedy": "r",
    }
