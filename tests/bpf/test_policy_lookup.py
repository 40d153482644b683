"""The kernel's choice among random rows is the one that is obviously right."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import furnish
from tests.support.bpf import A, B, Machine
from tests.support.naive_policy import Rows, decide
from tests.support.packets import tcp, udp
from wire.bpf.layouts import DropReason as R

PORTS = (0, 1, 63, 64, 80, 81, 127, 128, 8080, 65535)
OTHER_DIRECTION = PolicyKey(0, Direction.INGRESS)


@st.composite
def keys(draw: st.DrawFn) -> PolicyKey:
    identity = draw(st.sampled_from([0, B.identity, A.identity]))
    direction = draw(st.sampled_from([Direction.EGRESS, Direction.EGRESS, Direction.INGRESS]))
    bits = draw(st.sampled_from([0, 8, 9, 15, 17, 18, 20, 23, 24, 24]))
    if not bits:
        return PolicyKey(identity, direction)
    port = draw(st.sampled_from(PORTS)) >> (24 - bits) << (24 - bits)
    return PolicyKey(identity, direction, draw(st.sampled_from([6, 17])), port & 0xFFFF, bits)


entries = st.builds(
    PolicyEntry,
    deny=st.booleans(),
    audit=st.booleans(),
    rule=st.integers(0, 5),
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    machine = furnish(Machine(changes={"config_policy": 1}).load())
    machine.policy(B.number, {OTHER_DIRECTION: PolicyEntry()})
    yield machine
    machine.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.dictionaries(keys(), entries, max_size=8))
def test_kernel_agrees_with_the_naive_lookup(machine: Machine, rows: Rows) -> None:
    """Verdict, reason and the row that counts the packet, for every protocol and port."""
    machine.policy(A.number, rows)
    counted: dict[PolicyKey, int] = {}
    for protocol, make in ((6, tcp), (17, udp)):
        for port in PORTS:
            if (protocol, port) == (17, 8472):
                continue
            table = machine.tables["ist_ct"]
            table.remove([key for key, _ in list(table.rows())])
            done = machine.run("from_container", make(dport=port))
            wanted = decide(rows, B.identity, Direction.EGRESS, protocol, port)
            assert done.delivered is wanted.passes
            if wanted.row is None:
                assert done.reason is R.DROP_POLICY_DENIED
                continue
            counted[wanted.row] = counted.get(wanted.row, 0) + 1
            assert done.reason is (None if wanted.passes else R.DROP_POLICY_DENY_RULE)
    found = {key: packets for key, (packets, _) in machine.policy_traffic(A.number).items()}
    assert {key: n for key, n in found.items() if n} == counted
