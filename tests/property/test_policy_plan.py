"""However rows are changed one by one, no packet meets half of the change."""

from hypothesis import given
from hypothesis import strategies as st

from datapath.policy_plan import InPlace, plan
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.support.naive_policy import Rows, decide

PORTS = (0, 1, 2, 3, 80, 81)
IDENTITIES = (5, 6)


@st.composite
def keys(draw: st.DrawFn) -> PolicyKey:
    identity = draw(st.sampled_from([0, *IDENTITIES]))
    bits = draw(st.sampled_from([0, 8, 22, 23, 24]))
    direction = draw(st.sampled_from(list(Direction)))
    if not bits:
        return PolicyKey(identity, direction)
    port = draw(st.sampled_from(PORTS)) >> (24 - bits) << (24 - bits)
    return PolicyKey(identity, direction, 6, port & 0xFFFF, bits)


rows = st.dictionaries(
    keys(), st.builds(PolicyEntry, deny=st.booleans(), audit=st.booleans()), max_size=7
)


def verdicts(found: Rows) -> dict[tuple[int, Direction, int], object]:
    return {
        (identity, direction, port): decide(found, identity, direction, 6, port).entry
        for identity in IDENTITIES
        for direction in Direction
        for port in PORTS
    }


def steps_between(old: Rows, new: Rows, found: InPlace) -> list[Rows]:
    state, states = dict(old), [dict(old)]
    for key in found.write:
        state[key] = new[key]
        states.append(dict(state))
    for key in found.remove:
        del state[key]
        states.append(dict(state))
    return states


@given(old=rows, new=rows)
def test_single_writes_change_each_packet_once(old: Rows, new: Rows) -> None:
    """Through all the steps a packet has its old entry, and from some step on its new one."""
    found = plan(old, new, 100)
    if found is None:
        return
    states = steps_between(old, new, found)
    assert states[-1] == new
    before, after = verdicts(old), verdicts(new)
    arrived = set()
    for state in states:
        for packet, entry in verdicts(state).items():
            if entry == after[packet]:
                arrived.add(packet)
            assert entry == (after if packet in arrived else before)[packet]


@given(old=rows, changed=st.dictionaries(keys(), st.just(PolicyEntry()), max_size=4))
def test_an_identity_that_comes_or_goes_is_written_in_place(old: Rows, changed: Rows) -> None:
    """Rows of named identities alone never need a new trie, unless there is no room for both."""
    new = {**old, **{key: entry for key, entry in changed.items() if key.identity}}
    assert plan(old, new, 100) is not None
    assert plan(new, old, 100) is not None
    if set(new) - set(old):
        assert plan(old, new, len(new) - 1) is None


def test_a_change_of_both_kinds_is_a_swap() -> None:
    """A packet that two groups decide would meet one before the other."""
    old = {PolicyKey(5, Direction.INGRESS): PolicyEntry()}
    new = {PolicyKey(0, Direction.INGRESS): PolicyEntry(deny=True)}
    assert plan(old, new, 100) is None
