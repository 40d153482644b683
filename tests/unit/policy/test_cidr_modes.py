"""`policy-cidr-match-mode`: rules of prefixes that select nodes and pods by their addresses."""

from dataclasses import replace
from typing import Any

import pytest

from cli.policy_text import names_of
from model.address import parse_prefix
from model.labels import Labels
from model.policy_map import Direction
from policy.by_address import ByAddress
from policy.cidr_modes import CidrMode, cidr_mode, parse_cidr_modes
from policy.known import Options, Subject
from policy.objects.read import Source
from policy.oracle import Verdict
from policy.overlaps import pods_meant
from policy.rules import (
    CidrPeer,
    DirectionRule,
    Operator,
    Origin,
    PolicyRule,
    Requirement,
    Selector,
)
from policy.selectors import inner_labels
from policy.table import PolicyTable
from policy.trial import Change, try_out
from policy.whatif import Recorded, compare, replay
from tests.support.policy_engine import Engine, ccnp, cnp, knp
from tests.unit.policy.test_whatif import facts_of

NODES, PODS = CidrMode.NODES, CidrMode.PODS
WEB = {"matchLabels": {"app": "web"}}
EVERY = "0.0.0.0/0"
# C is a pod at 10.2.0.31, O one at 10.2.0.32; H this node at 192.0.2.1, N another at 192.0.2.129.
ASKED = ">Wd >H >N >K >C >O"


def engine(*objects: Source, modes: tuple[CidrMode, ...] = (), **more: Any) -> Engine:
    return Engine(objects, options=Options(cidr_modes=frozenset(modes)), **more)


def forms(cidr: str, holes: tuple[str, ...] = ()) -> list[tuple[str, Source]]:
    """The same prefix by every field that takes one."""
    block = {"cidr": cidr, "except": list(holes)}
    spec = {"endpointSelector": WEB}
    group = {"cidrGroupRef": "g", "except": list(holes)}
    found = [
        ("set", cnp({**spec, "egress": [{"toCIDRSet": [block]}]})),
        ("group", cnp({**spec, "egress": [{"toCIDRSet": [group]}]})),
        ("clusterwide", ccnp({**spec, "egress": [{"toCIDRSet": [block]}]})),
        (
            "ipBlock",
            knp({"podSelector": WEB, "policyTypes": ["Egress"],
                 "egress": [{"to": [{"ipBlock": block}]}]}),
        ),
    ]  # fmt: skip
    if not holes:
        found.append(("cidr", cnp({**spec, "egress": [{"toCIDR": [cidr]}]})))
    return found


@pytest.mark.parametrize(
    ("modes", "wanted"),
    [
        ((), "allow drop drop drop drop drop"),
        ((NODES,), "allow allow allow allow drop drop"),
        ((PODS,), "allow drop drop drop allow allow"),
        ((NODES, PODS), "allow allow allow allow allow allow"),
    ],
)
def test_all_addresses_are_all_addresses(modes: tuple[CidrMode, ...], wanted: str) -> None:
    """0.0.0.0/0 means the same in every field that takes a prefix."""
    for form, source in forms(EVERY):
        found = engine(source, modes=modes, groups={"g": [EVERY]})
        assert found.say(ASKED) == wanted, form
        assert found.say(">V6:80/TCP") == "drop", form


def test_holes_are_holes_for_nodes_and_pods() -> None:
    """What an exception covers is not selected, whoever lives there."""
    for form, source in forms(EVERY, ("192.0.2.128/25", "10.2.0.31/32")):
        found = engine(source, modes=(NODES, PODS), groups={"g": [EVERY]})
        assert found.say(ASKED) == "allow allow drop drop drop allow", form


def test_a_deny_by_address_beats_an_allow_by_labels() -> None:
    """And the other way round: both are asked, and who forbids decides."""
    entities = ["cluster"]
    allow = cnp({"endpointSelector": WEB, "egress": [{"toEntities": entities}]}, "a")
    shut = cnp({"endpointSelector": WEB, "egressDeny": [{"toCIDR": ["10.2.0.31/32"]}]}, "b")
    assert engine(allow, shut).say(">C >O >N") == "allow allow allow"
    assert engine(allow, shut, modes=(PODS,)).say(">C >O >N") == "deny allow allow"
    allow = cnp({"endpointSelector": WEB, "egress": [{"toCIDR": ["10.0.0.0/8"]}]}, "a")
    client = {"toEndpoints": [{"matchLabels": {"app": "client"}}]}
    shut = cnp({"endpointSelector": WEB, "egressDeny": [client]}, "b")
    assert engine(allow, shut, modes=(PODS,)).say(">C >O >N") == "deny allow drop"


def test_ports_of_a_rule_by_address() -> None:
    """Labels allow one port, the address another: each allows its own."""
    source = cnp(
        {
            "endpointSelector": WEB,
            "ingress": [
                {
                    "fromEndpoints": [{"matchLabels": {"app": "client"}}],
                    "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
                },
                {
                    "fromCIDR": ["10.2.0.0/16"],
                    "toPorts": [{"ports": [{"port": "443", "endPort": 450, "protocol": "TCP"}]}],
                },
            ],
        }
    )
    asked = "C:80/TCP C:443/TCP C:451/TCP O:80/TCP O:449/TCP"
    assert engine(source).say(asked) == "allow drop drop drop drop"
    assert engine(source, modes=(PODS,)).say(asked) == "allow allow drop drop allow"


def test_the_world_is_no_pod() -> None:
    """An entity or a selector is not met by a pod because a rule names its prefix."""
    world = cnp({"endpointSelector": WEB, "egress": [{"toEntities": ["world"]}]}, "a")
    other = cnp({"endpointSelector": WEB, "ingress": [{"fromCIDR": ["10.0.0.0/8"]}]}, "b")
    assert engine(world, other, modes=(NODES, PODS)).say(">Wd >C >N C") == "allow drop drop allow"


@pytest.mark.parametrize(
    "selector",
    [
        Selector(),
        Selector((Requirement("app", Operator.NOT_IN, ("client",)),)),
        Selector((Requirement("app", Operator.DOES_NOT_EXIST),)),
        Selector((Requirement("10.0.0.0/8", Operator.EXISTS),)),
        Selector((Requirement("10.0.0.0/8", Operator.IN, ("",)),)),
    ],
)
def test_no_selector_of_labels_selects_addresses(selector: Selector) -> None:
    """What stands for addresses of pods has rows by rules of prefixes only, in any order."""
    early, late = (3 << 24) + 1, (3 << 24) + 2
    table = PolicyTable(Options(cidr_modes=frozenset(CidrMode)))
    prefix = parse_prefix("10.0.0.0/8")
    table.put_identity(early, inner_labels(prefix))
    peers = (selector, CidrPeer(prefix))
    rules = [
        PolicyRule(
            Origin("CNP", "n", str(number)),
            Selector(),
            (DirectionRule(Direction.INGRESS, peers=(peer,)),),
            frozenset({Direction.INGRESS}),
        )
        for number, peer in enumerate(peers)
    ]
    table.put_object("labels", rules[:1])
    table.put_endpoint("e", Subject(Labels.k8s({"app": "web"})))
    table.compute()
    table.put_identity(late, inner_labels(prefix))
    table.compute()
    assert not {key.identity for key in table.rows("e")} & {early, late}
    table.put_object("prefixes", rules[1:])
    table.compute()
    assert {early, late} <= {key.identity for key in table.rows("e")}


def test_who_is_a_node_and_who_a_pod() -> None:
    """By the number; the world's addresses are what they always were."""
    nodes, pods, none = (1, 6, 7, (2 << 24) + 5), (4, 5, 8, 256, (9 << 16) + 300), (0, 2, 9, 10)
    assert {cidr_mode(n) for n in nodes} == {NODES}
    assert {cidr_mode(n) for n in pods} == {PODS}
    assert {cidr_mode(n) for n in (*none, (1 << 24) + 7)} == {None}


def test_the_setting() -> None:
    """A list, by commas or spaces; what is neither is refused with what to write."""
    assert parse_cidr_modes("") == frozenset()
    assert parse_cidr_modes("nodes") == {NODES}
    assert parse_cidr_modes("nodes, pods") == parse_cidr_modes("pods nodes") == {NODES, PODS}
    for text in ("node", "nodes,all", "PODS"):
        with pytest.raises(ValueError, match="use nodes, pods, or both"):
            parse_cidr_modes(text)


@pytest.mark.parametrize(
    ("cidr", "holes", "told"),
    [
        ("10.2.0.0/24", (), True),
        ("10.2.0.31/32", (), True),
        ("10.0.0.0/8", (), True),
        ("10.0.0.0/8", ("10.2.0.0/16",), False),
        ("10.0.0.0/8", ("10.2.0.0/25",), True),
        ("10.2.1.0/24", (), False),
        ("0.0.0.0/0", (), False),
    ],
)
def test_pods_that_are_passed_by_are_told(cidr: str, holes: tuple[str, ...], told: bool) -> None:
    """A prefix with pods in it is probably meant to select them; that of all addresses is not."""
    pods = [parse_prefix("10.2.0.0/24"), parse_prefix("fd00:2::/64")]
    for form, source in forms(cidr, holes):
        found = engine(source, groups={"g": [cidr]})
        said = pods_meant(found.known, found.readings[0].rules, pods)
        assert [str(f).startswith(f"spec: {cidr} has addresses of pods") for f in said] == (
            [True] if told else []
        ), form


def test_flows_are_judged_by_their_addresses() -> None:
    """What-if on recorded flows, and what it says of all pods and nodes of a prefix."""
    source = cnp({"endpointSelector": WEB, "egressDeny": [{"toCIDR": ["10.2.0.31/32"]}],
                  "enableDefaultDeny": {"egress": False}})  # fmt: skip
    node = replace(facts_of(engine(modes=(PODS,)), []), node="n")
    trial = try_out(node, Change(puts=(source,)))
    numbers = {"C": 1001, "O": 1003}
    flows = {
        Recorded("default/web", "", 1, numbers[name], 6, 80, "", address): 1
        for name, address in (("C", "10.2.0.31"), ("O", "10.2.0.32"))
    }
    by_address = ByAddress(node.options, trial.identities)
    (found,) = replay(trial.before, trial.after, {"default/web": 1}, flows, by_address)
    assert (found.peer, found.after) == (numbers["C"], Verdict.DENIED)
    ports = trial.asked["default/web"]
    changed = compare(trial.before, trial.after, trial.identities, "default/web", ports)
    told = {names_of(trial.identities[n], n) for d in changed for n in d.peers}
    assert "pods or nodes in 10.2.0.31/32" in told
