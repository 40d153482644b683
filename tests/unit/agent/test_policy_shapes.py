"""Policy in the REST API."""

import pytest

from agent import policy_shapes as shapes
from model.address import parse_prefix
from model.labels import Label, Labels
from model.policy_map import UNKNOWN_IDENTITY, Direction, PolicyEntry, PolicyKey
from policy.rules import CidrPeer, Operator, Origin, PolicyRule, Requirement, Selector

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY, AUDIT = PolicyEntry(), PolicyEntry(deny=True), PolicyEntry(audit=True)


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ({PolicyKey(0, IN): ALLOW, PolicyKey(0, OUT): ALLOW}, "none"),
        ({PolicyKey(0, OUT): ALLOW}, "ingress"),
        ({PolicyKey(0, IN): ALLOW}, "egress"),
        ({}, "both"),
        ({PolicyKey(0, IN): DENY, PolicyKey(0, OUT): DENY}, "both"),
        ({PolicyKey(0, IN): AUDIT, PolicyKey(0, OUT): ALLOW}, "audit-ingress"),
        ({PolicyKey(0, IN): AUDIT}, "egress"),
        (None, "none"),
    ],
)
def test_enforcement(rows: dict[PolicyKey, PolicyEntry] | None, word: str) -> None:
    assert shapes.enforcement(rows) == word


def test_realized() -> None:
    """Named identities by direction and verdict; anybody and unknown are nobody."""
    rows = {
        PolicyKey(300, IN, 6, 80, 24): ALLOW,
        PolicyKey(301, IN): DENY,
        PolicyKey(300, IN, 17, 53, 24): ALLOW,
        PolicyKey(0, OUT): ALLOW,
        PolicyKey(UNKNOWN_IDENTITY, OUT): ALLOW,
    }
    assert shapes.realized(rows, 5, 7, "") == {
        "allowed-ingress-identities": [300],
        "denied-ingress-identities": [301],
        "id": 5,
        "policy-enabled": "ingress",
        "policy-revision": 7,
    }
    assert shapes.realized(rows, 5, 7, "closed")["error"] == "closed"


def test_row() -> None:
    """Ports as a block, the rule's object by name."""
    rule = PolicyRule(Origin("CiliumNetworkPolicy", "n", "p"), Selector())
    labels = Labels.of([Label("app", "web")])
    row = shapes.row(
        PolicyKey(300, IN, 6, 8080, 21), DENY, lambda number: labels, lambda number: rule
    )
    assert (row["port"], row["last-port"], row["port-mask-bits"]) == (8080, 8087, 13)
    assert (row["verdict"], row["labels"], row["policy"]) == (
        "deny",
        ["k8s:app=web"],
        "CiliumNetworkPolicy n/p",
    )
    whole = shapes.row(PolicyKey(0, OUT), ALLOW, lambda number: None, lambda number: None)
    assert (whole["peer"], whole["protocol"], whole["last-port"]) == ("anybody", 0, 65535)


def test_selectors_for_people() -> None:
    requirements = (
        Requirement("app", Operator.IN, ("web",), "k8s"),
        Requirement("tier", Operator.NOT_IN, ("a", "b")),
        Requirement("x", Operator.EXISTS),
        Requirement("y", Operator.DOES_NOT_EXIST),
    )
    text = shapes.selector_text(Selector(requirements))
    assert text == "k8s:app=web, any:tier NotIn (a, b), any:x, !any:y"
    assert shapes.selector_text(Selector()) == "*"
    peer = CidrPeer(parse_prefix("10.0.0.0/8"), (parse_prefix("10.1.0.0/16"),))
    assert shapes.selector_text(peer) == "cidr:10.0.0.0/8 except 10.1.0.0/16"
