"""Bodies of the wrong shape."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kind.apiserver.errors import ApiError
from kind.apiserver.patch import deep_copy
from kind.apiserver.resources import BUILTIN
from kind.apiserver.strategy import (
    Stamp,
    check_place,
    check_shape,
    check_type,
    prepare_create,
    prepare_update,
)
from kind.apiserver.tables import to_table
from tests.support.kind_apiserver import deployment, pod, service
from tests.unit.kind_apiserver.test_tables import NOW

BY_TABLE = {r.table: r for r in BUILTIN}
STAMP = Stamp("2026-01-01T00:00:00Z", "uid-1", "bcdfg")


def slice_(name: str) -> Any:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": 80}],
    }


def crd() -> Any:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
        "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "xs.e.com"},
        "spec": {
            "group": "e.com",
            "scope": "Cluster",
            "versions": [version],
            "names": {"plural": "xs", "kind": "X", "shortNames": ["x"]},
        },
    }


OBJECTS: dict[str, Any] = {
    "core/pods": pod("p", "n", app="a"),
    "core/services": service("s", "n", {"app": "a"}, type="NodePort"),
    "apps/deployments": deployment("d", "n", 2),
    "discovery.k8s.io/endpointslices": slice_("s"),
    "apiextensions.k8s.io/customresourcedefinitions": crd(),
}
_junk = st.sampled_from(
    [
        None,
        "",
        "text",
        0,
        -1,
        1.5,
        True,
        [],
        {},
        [None],
        ["x"],
        [[]],
        {"a": 1},
        {"name": None},
        [{}],
        [{"name": 1}],
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in an object that can hold something else."""
    out = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            out += places(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            out += places(item, (*path, number))
    return out


def damaged(obj: Any, path: tuple[Any, ...], junk: Any) -> Any:
    out = deep_copy(obj)
    place = out
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = junk
    return out


def store(table: str, body: Any) -> Any:
    resource = BY_TABLE[table]
    obj = check_shape(resource, check_type(resource, body))
    check_place(resource, obj, "n" if resource.namespaced else "", "")
    prepare_create(resource, obj, STAMP)
    return obj


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_objects_are_refused_or_harmless(data: Any) -> None:
    """Anything anywhere in an object ends in a Status, or in an object that can be shown."""
    table = data.draw(st.sampled_from(sorted(OBJECTS)))
    path = data.draw(st.sampled_from(places(OBJECTS[table])))
    body = damaged(OBJECTS[table], path, data.draw(_junk))
    assert outcome(lambda: show(table, store(table, deep_copy(body)))) in (0, 400, 422)
    assert outcome(lambda: replace(table, body)) in (0, 400, 409, 422)


def outcome(attempt: Callable[[], None]) -> int:
    """0, or the code of the refusal."""
    try:
        attempt()
    except ApiError as error:
        return error.code
    return 0


def show(table: str, stored: Any) -> None:
    to_table(BY_TABLE[table], [stored], NOW, "Object", {})


def replace(table: str, body: Any) -> None:
    resource = BY_TABLE[table]
    old = store(table, deep_copy(OBJECTS[table]))
    new = check_shape(resource, check_type(resource, body))
    check_place(resource, new, "n" if resource.namespaced else "", old["metadata"]["name"])
    prepare_update(resource, new, old)


def test_the_field_is_named() -> None:
    """A list that is a text is told with its path and both types."""
    body = damaged(OBJECTS["core/pods"], ("spec", "containers"), "none")
    with pytest.raises(ApiError) as error:
        store("core/pods", body)
    assert error.value.code == 400
    assert "spec.containers in body must be of type array" in error.value.message


def test_nulls_mean_absence() -> None:
    """An explicit null is as good as nothing, as in Go."""
    body = damaged(OBJECTS["core/pods"], ("metadata", "labels"), None)
    assert "labels" not in store("core/pods", body)["metadata"]
