"""Addresses of a node: every one once, never the first or the last."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ipam import Pool, PoolExhaustedError, Pools
from model.address import parse_address, parse_prefix


def test_all_addresses_and_then_none() -> None:
    """A /29 holds six; the seventh is refused with the remedy; a released one is given again."""
    pool = Pool(parse_prefix("10.1.0.0/29"))
    draw = random.Random(1).random
    given_out = {pool.allocate(f"p{n}", draw) for n in range(6)}
    assert given_out == {parse_address(f"10.1.0.{n}") for n in range(1, 7)}
    with pytest.raises(PoolExhaustedError, match="larger pod CIDR"):
        pool.allocate("late", draw)
    pool.release(parse_address("10.1.0.3"))
    assert pool.allocate("late", draw) == parse_address("10.1.0.3")
    assert pool.capacity == 6
    assert Pool(parse_prefix("10.1.0.0/24")).capacity == 254


def test_taking_a_certain_address() -> None:
    """Its owner may take it again; nobody else; nothing outside, first or last."""
    pool = Pool(parse_prefix("10.1.0.0/24"))
    address = parse_address("10.1.0.9")
    assert pool.take(address, "a")
    assert pool.take(address, "a")
    assert not pool.take(address, "b")
    assert pool.owner(address) == "a"
    for text in ("10.1.0.0", "10.1.0.255", "10.2.0.1", "fd00::1"):
        assert not pool.take(parse_address(text), "a")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60), st.integers())
def test_no_address_twice(steps: list[tuple[bool, int]], seed: int) -> None:
    """Whatever is allocated and released, an address has one owner and lies inside."""
    pool = Pool(parse_prefix("10.1.0.0/28"))
    draw = random.Random(seed).random
    held: dict[int, object] = {}
    for allocate, number in steps:
        if allocate and number not in held and len(held) < pool.capacity:
            address = pool.allocate(str(number), draw)
            assert address not in held.values()
            assert pool.contains(address)
            held[number] = address
        elif not allocate and number in held:
            pool.release(held.pop(number))  # type: ignore[arg-type]
    assert len(pool) == len(held)
    assert {a for a, _ in pool} == set(held.values())


def test_an_address_of_each_family_or_none() -> None:
    """When one pool is full the other's address goes back."""
    four, six = Pool(parse_prefix("10.1.0.0/29")), Pool(parse_prefix("fd00::/126"))
    pools = Pools([four, six])
    draw = random.Random(1).random
    first = pools.allocate("a", draw)
    assert [a.version for a in first] == [4, 6]
    pools.allocate("b", draw)
    with pytest.raises(PoolExhaustedError, match="fd00::/126"):
        pools.allocate("c", draw)
    assert (len(four), len(six)) == (2, 2)
    pools.release(first)
    assert (len(four), len(six)) == (1, 1)
    assert all(pools.take(address, "a") for address in first)
    assert not pools.take(parse_address("fd00:1::1"), "a")
