"""Rows of policy maps as people read them."""

import pytest

from cli.bpf_policy import as_objects, port_text, table
from datapath.policy_encoding import Traffic
from model.policy_map import Direction, PolicyEntry, PolicyKey

IN, OUT = Direction.INGRESS, Direction.EGRESS
ROWS = {
    PolicyKey(0, OUT): (PolicyEntry(), Traffic(12, 977)),
    PolicyKey(70001, IN, 6, 8080, 24): (PolicyEntry(rule=3), Traffic(310, 51200)),
    PolicyKey(1, IN): (PolicyEntry(), Traffic(94, 8120)),
    PolicyKey(0, IN, 6, 22, 24): (PolicyEntry(deny=True), Traffic()),
    PolicyKey(0, IN, 17, 0, 8): (PolicyEntry(deny=True, audit=True), Traffic()),
}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (PolicyKey(0, IN), "ANY"),
        (PolicyKey(0, IN, 132, 0, 8), "SCTP"),
        (PolicyKey(0, IN, 6, 8080, 24), "8080/TCP"),
        (PolicyKey(0, IN, 6, 9088, 21), "9088-9095/TCP"),
        (PolicyKey(0, IN, 99, 0, 8), "99"),
    ],
)
def test_ports(key: PolicyKey, text: str) -> None:
    """Any, a protocol, a port, a block of ports."""
    assert port_text(key) == text


def test_table_has_deny_first() -> None:
    """Denying rows first, then by direction and identity."""
    lines = table(ROWS, numeric=False)
    assert lines[0][2] == "LABELS (source:key[=value])"
    assert [line[:4] for line in lines[1:]] == [
        ["Deny", "Ingress", "ANY", "22/TCP"],
        ["Deny (Audit)", "Ingress", "ANY", "UDP"],
        ["Allow", "Ingress", "reserved:host", "ANY"],
        ["Allow", "Ingress", "70001", "8080/TCP"],
        ["Allow", "Egress", "ANY", "ANY"],
    ]
    assert lines[4][4:] == ["NONE", "disabled", "51200", "310", "24", "3"]


def test_numeric_identities() -> None:
    """With ``-n`` anybody is 0 and the host is 1."""
    lines = table(ROWS, numeric=True)
    assert lines[0][2] == "IDENTITY"
    assert [line[2] for line in lines[1:]] == ["0", "0", "1", "70001", "0"]


def test_objects_say_the_same() -> None:
    """One object per row, in the same order."""
    found = as_objects(ROWS)
    assert found[0]["Value"]["Deny"] is True
    assert found[3]["Key"] == {
        "Prefixlen": 64,
        "Identity": 70001,
        "TrafficDirection": 0,
        "Nexthdr": 6,
        "DestPort": 8080,
    }
    assert (found[3]["Value"]["Packets"], found[3]["Value"]["Bytes"]) == (310, 51200)
