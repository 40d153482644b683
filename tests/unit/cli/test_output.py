"""Columns and JSON of every listing."""

import json

from hypothesis import given
from hypothesis import strategies as st

from cli import output


def test_columns_are_three_blanks_apart() -> None:
    """A column is as wide as its longest cell and three blanks, and never below five."""
    text = output.table([["ID", "Frontend", "x"], ["10", "10.0.0.1:80/TCP", "y"]])
    assert text == "ID   Frontend          x\n10   10.0.0.1:80/TCP   y"


def test_further_lines_stand_below_their_column() -> None:
    """A cell of several lines leaves the other columns blank."""
    rows = output.continued(["7", "a", "z"], 1, ["b", "c"])
    assert output.table(rows) == "7    a    z\n     b\n     c"


def test_an_empty_table_is_no_error() -> None:
    """No rows, no text."""
    assert output.table([]) == ""


@given(st.lists(st.lists(st.text("ab", max_size=9), min_size=3, max_size=3), min_size=1))
def test_columns_start_at_the_same_place(rows: list[list[str]]) -> None:
    """Every cell can be cut out again at the place where its column starts."""
    lines = output.table(rows).split("\n")
    second = max(5, *(len(row[0]) + 3 for row in rows))
    third = second + max(5, *(len(row[1]) + 3 for row in rows))
    for line, row in zip(lines, rows, strict=True):
        cells = [line[:second], line[second:third], line[third:]]
        assert [cell.rstrip() for cell in cells] == row


def test_json_keeps_letters() -> None:
    """Names in other scripts stay readable and decode to the same."""
    assert "ü" in output.as_json({"name": "ü"})
    assert json.loads(output.as_json({"name": "ü"})) == {"name": "ü"}


def test_addresses_of_both_families() -> None:
    """An IPv6 address is set in brackets before its port."""
    assert output.place_text("10.0.0.1", 80, "tcp") == "10.0.0.1:80/TCP"
    assert output.place_text("fd00::1", 53, "udp") == "[fd00::1]:53/UDP"
