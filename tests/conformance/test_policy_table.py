"""Policy rows in the kernel: what changes keep, and what does not fit."""

import errno
from collections.abc import Iterator

import pytest

from datapath import syscall
from datapath.encoding import number_key, parse_number_key
from datapath.kernel_table import KernelTable
from datapath.policy import PolicyTable, all_traffic
from datapath.policy_encoding import ROWS_MAX, Traffic, key, value
from model.endpoint import EndpointId
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.support.datapath import kernel_thread, policy_table

pytestmark = pytest.mark.root
POD = EndpointId(3)
WEB = PolicyKey(70001, Direction.INGRESS, 6, 80, 24)
DNS = PolicyKey(70002, Direction.INGRESS, 17, 53, 24)
ANYBODY = PolicyKey(0, Direction.INGRESS)
ALLOW, DENY = PolicyEntry(), PolicyEntry(deny=True)


@pytest.fixture
def endpoints() -> Iterator[KernelTable]:
    table = policy_table()
    yield table
    table.close()


@pytest.fixture
def table(endpoints: KernelTable) -> Iterator[PolicyTable]:
    with kernel_thread() as thread:
        yield PolicyTable(thread, endpoints)


def trie_of(endpoints: KernelTable, number: EndpointId = POD) -> int:
    """The id of the endpoint's trie."""
    found = endpoints.get(number_key(number))
    assert found is not None
    return parse_number_key(found)


def matched(endpoints: KernelTable, row: PolicyKey, packets: int) -> None:
    """As if packets had met a row."""
    trie = KernelTable(syscall.map_by_id(trie_of(endpoints)), "trie")
    assert trie.write([(key(row), value(row, ALLOW, Traffic(packets, 100 * packets)))]) == {}
    trie.close()


async def test_identities_come_and_go_in_place(table: PolicyTable, endpoints: KernelTable) -> None:
    """Rows of named identities are written into the trie that is there; counters stay."""
    await table.upsert([(POD, {WEB: ALLOW})])
    trie = trie_of(endpoints)
    matched(endpoints, WEB, 5)
    await table.upsert([(POD, {WEB: ALLOW, DNS: ALLOW})])
    await table.upsert([(POD, {WEB: ALLOW})])
    assert trie_of(endpoints) == trie
    assert all_traffic(endpoints) == {POD: {WEB: (ALLOW, Traffic(5, 500))}}


async def test_a_change_for_everybody_swaps_the_trie(
    table: PolicyTable, endpoints: KernelTable
) -> None:
    """A new trie takes the place of the old one as a whole, with the counters of what stays."""
    await table.upsert([(POD, {WEB: ALLOW, DNS: ALLOW})])
    trie = trie_of(endpoints)
    matched(endpoints, WEB, 5)
    await table.upsert([(POD, {WEB: ALLOW, ANYBODY: DENY})])
    assert trie_of(endpoints) != trie
    assert all_traffic(endpoints) == {
        POD: {WEB: (ALLOW, Traffic(5, 500)), ANYBODY: (DENY, Traffic())}
    }


async def test_too_many_rows_close_the_endpoint(table: PolicyTable, endpoints: KernelTable) -> None:
    """One row more than fits: no row at all, an error that says so, and others are untouched."""
    fits = {PolicyKey(n, Direction.INGRESS): ALLOW for n in range(1, ROWS_MAX + 1)}
    other = EndpointId(4)
    assert await table.upsert([(POD, fits), (other, {WEB: ALLOW})]) == {}
    assert len((await table.read())[POD]) == ROWS_MAX
    more = fits | {ANYBODY: ALLOW}
    errors = await table.upsert([(POD, more), (other, {DNS: ALLOW})])
    assert list(errors) == [POD]
    assert errors[POD].errno == errno.E2BIG
    assert "policy of endpoint 3 has 16385 rows and its map takes 16384" in str(errors[POD])
    assert "all its traffic is denied" in str(errors[POD])
    assert await table.read() == {POD: {}, other: {DNS: ALLOW}}
    assert await table.upsert([(POD, fits)]) == {}
    assert (await table.read())[POD] == fits
