"""The ring against a plain list of everything that was ever appended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubble.ring import (
    Entry,
    Follower,
    Lost,
    Ring,
    is_flow,
    lost_record,
    parse_lost,
)

TRACE = b"\x04trace"
DEBUG = b"\x02debug"


@pytest.mark.parametrize("capacity", [0, 2, 4096, 131071, -1])
def test_a_capacity_that_is_not_one_less_than_a_power_of_two_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="2\\^n-1"):
        Ring(capacity)


@pytest.mark.parametrize("capacity", [1, 3, 4095, 65535])
def test_an_empty_ring_has_nothing_to_read(capacity: int) -> None:
    ring = Ring(capacity)
    assert (len(ring), ring.newest, ring.flows_seen) == (0, 0, 0)
    assert ring.at(0) is None
    assert ring.at(1) is None
    assert ring.first_since(0) == ring.newest + 1
    assert ring.flows_rate(10**18) == 0
    assert Follower(ring).take() == (0, [])


batches = st.lists(st.lists(st.sampled_from([TRACE, DEBUG]), max_size=9), max_size=12)


@given(batches, st.sampled_from([1, 3, 7]))
def test_the_ring_holds_the_end_of_all_that_was(batches: list[list[bytes]], capacity: int) -> None:
    ring, told = Ring(capacity), []
    everything: list[Entry] = []
    ring.watch(lambda: told.append(ring.newest))
    for batch in batches:
        first = len(everything) + 1
        new = [Entry(first + i, 10 * (first + i), record) for i, record in enumerate(batch)]
        everything += new
        ring.extend((entry.time_ns, entry.record) for entry in new)
        if new:
            assert told[-1] == len(everything)
        assert len(ring) == min(capacity, len(everything))
        assert ring.flows_seen == sum(entry.record == TRACE for entry in everything)
        for entry in everything:
            kept = entry.number > len(everything) - capacity
            assert ring.at(entry.number) == (entry if kept else None)
            if kept:
                assert ring.first_since(entry.time_ns) == entry.number
                assert ring.first_since(entry.time_ns + 1) == entry.number + 1
        assert ring.at(len(everything) + 1) is None
    assert len(told) == sum(bool(batch) for batch in batches)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=30))
def test_what_a_follower_takes_and_what_it_lost_is_everything(
    steps: list[tuple[int, int]],
) -> None:
    ring = Ring(7)
    follower = Follower(ring)
    expected, total = 1, 0
    for count, limit in steps:
        ring.extend((n, TRACE) for n in range(count))
        total += count
        lost, taken = follower.take(limit)
        expected += lost
        assert lost == 0 or expected == ring.oldest
        assert [entry.number for entry in taken] == list(range(expected, expected + len(taken)))
        assert len(taken) == min(limit, total - expected + 1)
        expected += len(taken)


def test_a_follower_may_begin_anywhere() -> None:
    ring = Ring(7)
    ring.extend((n, TRACE) for n in range(5))
    assert [entry.number for entry in Follower(ring, 4).take()[1]] == [4, 5]
    assert Follower(ring).take() == (0, [])
    late = Follower(ring, 9)  # asked from a number that is yet to come
    assert late.take() == (0, [])
    ring.extend((n, TRACE) for n in range(5))
    assert [entry.number for entry in late.take()[1]] == [9, 10]


def test_who_ends_its_watch_is_not_woken_any_more() -> None:
    ring, told = Ring(1), []
    end = ring.watch(lambda: told.append(1))
    ring.extend([(1, TRACE)])
    end()
    end()
    ring.extend([(2, TRACE)])
    assert told == [1]


def test_one_may_end_its_watch_while_it_is_woken() -> None:
    ring, told = Ring(1), []
    end = ring.watch(lambda: (told.append(1), end())[0])
    ring.watch(lambda: told.append(2))
    ring.extend([(1, TRACE)])
    ring.extend([(2, TRACE)])
    assert told == [1, 2, 2]


def test_the_rate_is_of_the_last_minute_and_of_flows_only() -> None:
    ring, second = Ring(4095), 10**9
    ring.extend((n * second, TRACE) for n in range(100, 200))
    ring.extend((200 * second, DEBUG) for _ in range(50))
    assert ring.flows_rate(200 * second) == pytest.approx(1.0)
    short = Ring(7)
    short.extend((n * second, TRACE) for n in range(190, 200))
    assert short.flows_rate(200 * second) == pytest.approx(1.0)


def test_a_loss_is_a_record_and_no_flow() -> None:
    lost = Lost(source=1, cpu=63, number=2**40)
    assert parse_lost(lost_record(lost)) == lost
    assert not is_flow(lost_record(lost))
    assert is_flow(TRACE)


def test_only_what_is_wanted_is_kept_and_losses_always() -> None:
    loss = lost_record(Lost(1, 0, 7))
    ring = Ring(7, frozenset((4,)))
    ring.extend([(1, DEBUG)])
    ring.extend([(1, TRACE), (2, DEBUG), (3, loss), (4, TRACE)])
    kept = [ring.at(number) for number in range(1, ring.newest + 1)]
    assert [(one.time_ns, one.record) for one in kept if one] == [(1, TRACE), (3, loss), (4, TRACE)]
    assert ring.flows_seen == 2
