"""Structural schemas of custom resources."""

from typing import Any

import pytest

from kind.apiserver import schema

SPEC: Any = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 3},
                "ratio": {"type": "number", "exclusiveMinimum": True, "minimum": 0},
                "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
                "colour": {"enum": ["red", "green"], "type": "string", "default": "red"},
                "port": {"x-kubernetes-int-or-string": True},
                "items": {
                    "type": "array",
                    "maxItems": 2,
                    "items": {
                        "type": "object",
                        "properties": {"on": {"type": "boolean", "default": True}},
                    },
                },
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "maybe": {"type": "string", "nullable": True},
                "ip": {"type": "string", "format": "ipv4"},
                "either": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            },
        }
    },
}


def problems(**spec: Any) -> list[str]:
    return [c.field for c in schema.validate({"spec": spec}, SPEC)]


@pytest.mark.parametrize(
    "spec",
    [
        {"size": 3},
        {"size": 3, "ratio": 1, "name": "ab", "colour": "green"},
        {"size": 3, "port": "http", "map": {"a": 1}, "free": {"any": [1]}},
        {"size": 3, "port": 1, "maybe": None, "ip": "10.0.0.1", "either": {"a": 1}},
    ],
)
def test_valid(spec: Any) -> None:
    """What the schema allows is allowed."""
    assert problems(**spec) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.size"),
        ({"size": "3"}, "spec.size"),
        ({"size": True}, "spec.size"),
        ({"size": 12}, "spec.size"),
        ({"size": 4}, "spec.size"),
        ({"size": 3, "ratio": 0}, "spec.ratio"),
        ({"size": 3, "name": "a"}, "spec.name"),
        ({"size": 3, "name": "abcde"}, "spec.name"),
        ({"size": 3, "name": "AB"}, "spec.name"),
        ({"size": 3, "colour": "blue"}, "spec.colour"),
        ({"size": 3, "port": 1.5}, "spec.port"),
        ({"size": 3, "items": [{}, {}, {}]}, "spec.items"),
        ({"size": 3, "items": [{"on": 1}]}, "spec.items[0].on"),
        ({"size": 3, "map": {"a": "x"}}, "spec.map.a"),
        ({"size": 3, "ip": "10.0.0.256"}, "spec.ip"),
        ({"size": 3, "either": {}}, "spec.either"),
        ({"size": 3, "either": {"a": 1, "b": 1}}, "spec.either"),
        ({"size": 3, "name": None}, "spec.name"),
    ],
)
def test_invalid(spec: Any, field: str) -> None:
    """Each violation is told with the path of its field."""
    assert problems(**spec) == [field]


def test_pruning() -> None:
    """Unknown fields go and are reported, free ones and metadata stay."""
    obj = {
        "apiVersion": "x/v1",
        "kind": "X",
        "metadata": {"anything": 1},
        "extra": 1,
        "spec": {"size": 3, "other": 1, "free": {"a": {"b": 1}}, "items": [{"on": True, "x": 1}]},
    }
    assert sorted(schema.prune(obj, SPEC)) == ["extra", "spec.items[0].x", "spec.other"]
    assert obj["spec"] == {"size": 3, "free": {"a": {"b": 1}}, "items": [{"on": True}]}
    assert obj["metadata"] == {"anything": 1}


def test_defaults() -> None:
    """Absent fields get their default inside what is there, not where nothing is."""
    obj: Any = {"spec": {"size": 3, "items": [{}]}}
    schema.apply_defaults(obj, SPEC)
    assert obj["spec"]["colour"] == "red"
    assert obj["spec"]["items"] == [{"on": True}]
    empty: Any = {}
    schema.apply_defaults(empty, SPEC)
    assert empty == {}
