"""Selectors know their members, and identities their selectors, after any series of changes."""

from hypothesis import given
from hypothesis import strategies as st

from model.address import parse_prefix
from model.labels import Label, Labels
from policy.rules import CidrPeer, Operator, Requirement, Selector
from policy.selector_cache import SelectorCache, SelectorIndex
from policy.selectors import cidr_labels, inner_labels, inside, is_inner, prefix_of, selects

PREFIXES = [parse_prefix(p) for p in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0")]

pods = st.lists(
    st.builds(
        Label,
        st.sampled_from(["app", "ns", ""]),
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["k8s", "other"]),
    ),
    max_size=3,
).map(Labels.of)
prefixes = st.sampled_from(PREFIXES)
labels = st.one_of(pods, prefixes.map(cidr_labels), prefixes.map(inner_labels))
requirements = st.builds(
    Requirement,
    st.sampled_from(["app", "ns", "", "world"]),
    st.sampled_from([Operator.IN, *Operator]),
    st.lists(st.sampled_from(["a", "b", ""]), max_size=2).map(tuple),
    st.sampled_from(["any", "k8s", "other"]),
)
selectors = st.builds(Selector, st.lists(requirements, max_size=2).map(tuple))
peers = st.builds(CidrPeer, prefixes, st.lists(prefixes, max_size=1).map(tuple))
users = st.sampled_from(["one", "two"])
numbers = st.integers(1, 4)
changes = st.one_of(
    st.tuples(st.just("put"), numbers, labels),
    st.tuples(st.just("drop"), numbers, st.none()),
    st.tuples(st.just("use"), users, st.one_of(selectors, peers)),
    st.tuples(st.just("release"), users, st.integers(0, 9)),
)


def is_member(who: Selector | CidrPeer, found: Labels) -> bool:
    """Straight from the meaning."""
    if isinstance(who, Selector):
        return not is_inner(found) and selects(who, found)
    prefix = prefix_of(found)
    return prefix is not None and inside(who, prefix)


@given(st.lists(changes, max_size=20))
def test_members_and_users_are_told_after_any_changes(series: list[tuple]) -> None:
    """Members are whom the selector selects; a change touches those who use what gains or loses."""
    cache: SelectorCache[str] = SelectorCache()
    known: dict[int, Labels] = {}
    used: dict[Selector | CidrPeer, set[str]] = {}
    for act, key, what in series:
        if act in ("put", "drop"):
            both = [known.pop(key, None), what]
            touched = cache.put(key, what) if what is not None else cache.drop(key)
            if what is not None:
                known[key] = what
            if both[0] != both[1]:
                lost_or_won = [ls for ls in both if ls is not None]
                expected = (u for w, u in used.items() if any(is_member(w, x) for x in lost_or_won))
                assert touched == set().union(*expected)
        elif act == "use":
            cache.use(what, key)
            used.setdefault(what, set()).add(key)
        elif what < len(used):
            who = list(used)[what]
            cache.release(who, key)
            used[who].discard(key)
            if not used[who]:
                del used[who]
        assert dict(cache.in_use()) == {
            who: {n for n, found in known.items() if is_member(who, found)} for who in used
        }
        assert {who: cache.users(who) for who in used} == {w: len(u) for w, u in used.items()}


@given(st.lists(selectors, max_size=8), st.sets(st.integers(0, 7)), pods)
def test_an_index_finds_what_was_filed_and_not_dropped(
    filed: list[Selector], gone: set[int], found: Labels
) -> None:
    """Whatever the condition is that a selector was filed under."""
    index: SelectorIndex[int] = SelectorIndex()
    for number, selector in enumerate(filed):
        index.put(number, selector)
    for number in gone & set(range(len(filed))):
        index.drop(number, filed[number])
    left = {n for n, selector in enumerate(filed) if n not in gone and selects(selector, found)}
    assert index.selecting(found) == left
