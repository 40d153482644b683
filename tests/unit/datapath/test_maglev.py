"""Maglev tables: even, stable, and the same on every node."""

from datapath import maglev

SIZE = 16381


def names(count: int) -> dict[str, int]:
    return {f"10.0.0.{n}|80": n + 1 for n in range(count)}


def test_every_place_names_a_backend() -> None:
    """No place of the table is empty, and the shares differ by a few per cent at most."""
    table = maglev.build(names(10), SIZE)
    shares = [table.count(n + 1) for n in range(10)]
    assert sum(shares) == SIZE
    assert max(shares) - min(shares) <= SIZE // 10 * 0.02


def test_one_backend_less_moves_little() -> None:
    """When one of a hundred backends goes, few flows of the others change their backend."""
    full = names(100)
    before = maglev.build(full, SIZE)
    gone = full.pop("10.0.0.42|80")
    after = maglev.build(full, SIZE)
    moved = sum(b != a for b, a in zip(before, after, strict=True) if b != gone)
    assert gone not in after
    assert moved / SIZE < 0.05


def test_order_and_numbers_do_not_matter() -> None:
    """Nodes that number backends differently lead a flow to the same backend."""
    here = {"a": 1, "b": 2, "c": 3}
    there = {"c": 7, "a": 9, "b": 8}
    name_here = {number: name for name, number in here.items()}
    name_there = {number: name for name, number in there.items()}
    one, two = maglev.build(here, 251), maglev.build(there, 251)
    assert [name_here[n] for n in one] == [name_there[n] for n in two]


def test_no_backend_gives_zeroes() -> None:
    """An empty service has a table that names no backend."""
    assert set(maglev.build({}, 251)) == {0}


def test_weights_are_parts_of_the_table() -> None:
    """A backend of three times the weight has three times the places."""
    table = maglev.build({"a": 1, "b": 2}, SIZE, {"a": 3, "b": 1})
    assert abs(table.count(1) - SIZE * 3 / 4) <= 2
    assert abs(table.count(2) - SIZE / 4) <= 2


def test_a_changed_weight_moves_what_it_must() -> None:
    """From 80:20 to 60:40 a fifth of the flows has to move; few others do."""
    ids = names(10)
    order = sorted(ids)
    near, far = order[:5], order[5:]
    tables = [
        maglev.build(ids, SIZE, dict.fromkeys(near, a) | dict.fromkeys(far, b))
        for a, b in ((80, 20), (60, 40))
    ]
    moved = sum(one != other for one, other in zip(*tables, strict=True)) / SIZE
    assert 0.19 < moved < 0.35
