"""Label and field selectors."""

import pytest

from kind.apiserver.errors import ApiError
from kind.apiserver.selectors import (
    Selection,
    match_labels,
    parse_fields,
    parse_label_selector,
    parse_labels,
)


@pytest.mark.parametrize(
    ("text", "labels", "claim"),
    [
        ("a=1", {"a": "1"}, True),
        ("a==1", {"a": "2"}, False),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a in (1, 2),b notin (3)", {"a": "2", "b": "4"}, True),
        ("a in (1,2)", {"a": "3"}, False),
        ("a notin (1)", {}, True),
        ("a=", {"a": ""}, True),
        ("", {}, True),
        ("x.y/z=1", {"x.y/z": "1"}, True),
    ],
)
def test_label_terms(text: str, labels: dict[str, str], claim: bool) -> None:
    """Each form of a term means what the API documents."""
    assert match_labels(parse_labels(text), labels) is claim


@pytest.mark.parametrize("text", ["a b", "a=(b)", "in (a)", "a in b", "=x"])
def test_terms_that_do_not_parse(text: str) -> None:
    """A term that is none is refused by name."""
    with pytest.raises(ApiError, match="unable to parse requirement"):
        parse_labels(text)


def test_selector_objects() -> None:
    """matchLabels and matchExpressions must all hold; none selects nothing."""
    found = parse_label_selector(
        {
            "matchLabels": {"a": "1"},
            "matchExpressions": [
                {"key": "b", "operator": "In", "values": ["x", "y"]},
                {"key": "c", "operator": "DoesNotExist"},
            ],
        }
    )
    assert found is not None
    assert match_labels(found, {"a": "1", "b": "y"})
    assert not match_labels(found, {"a": "1", "b": "y", "c": ""})
    assert parse_label_selector(None) is None
    assert parse_label_selector({}) == ()
    with pytest.raises(ApiError, match="Near"):
        parse_label_selector({"matchExpressions": [{"key": "a", "operator": "Near"}]})


def test_fields() -> None:
    """Fields compare as text, absent ones as empty or false; unknown ones are refused."""
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}

    def matches(text: str) -> bool:
        return Selection(fields=parse_fields(text, "pods")).matches(pod)

    assert matches("metadata.name=p,spec.nodeName==n")
    assert not matches("status.phase!=Running")
    assert matches("spec.hostNetwork=false")
    assert matches("status.podIP=")
    with pytest.raises(ApiError, match=r"spec\.colour"):
        parse_fields("spec.colour=red", "pods")
    with pytest.raises(ApiError, match="can't understand"):
        parse_fields("metadata.name", "pods")
