"""JSON patch, merge patch, strategic merge patch and server-side apply."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kind.apiserver.apply import apply
from kind.apiserver.errors import ApiError
from kind.apiserver.patch import deep_copy, json_patch, merge_patch
from kind.apiserver.strategic import strategic_merge

_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3))
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_examples(target: Any, patch: Any, result: Any) -> None:
    """The examples of RFC 7386, appendix A."""
    assert merge_patch(target, patch) == result


@given(_json, _json)
def test_merge_patch_leaves_its_input_alone(target: Any, patch: Any) -> None:
    """Neither target nor patch is changed, and applying a patch twice is applying it once."""
    before = deep_copy(target), deep_copy(patch)
    once = merge_patch(target, patch)
    assert (target, patch) == before
    assert merge_patch(once, patch) == once


def test_json_patch_operations() -> None:
    """Each operation of RFC 6902, with escapes and list positions."""
    doc = {"a": [1, 2], "m": {"x/y": 1, "t~": 2}}
    found = json_patch(
        doc,
        [
            {"op": "test", "path": "/a/0", "value": 1},
            {"op": "add", "path": "/a/1", "value": 9},
            {"op": "add", "path": "/a/-", "value": 10},
            {"op": "remove", "path": "/m/x~1y"},
            {"op": "replace", "path": "/m/t~0", "value": 3},
            {"op": "copy", "from": "/a/0", "path": "/c"},
            {"op": "move", "from": "/m", "path": "/n"},
        ],
    )
    assert found == {"a": [1, 9, 2, 10], "n": {"t~": 3}, "c": 1}
    assert doc == {"a": [1, 2], "m": {"x/y": 1, "t~": 2}}


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "replace", "path": "/a/7", "value": 1}], 422),
        ([{"op": "test", "path": "/a", "value": 1}], 422),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"op": "jump", "path": "/a"}], 400),
        ([{"path": 1}], 400),
        ({"op": "add"}, 400),
    ],
)
def test_json_patch_refusals(patch: Any, code: int) -> None:
    """An operation that cannot be done refuses the whole patch."""
    with pytest.raises(ApiError) as error:
        json_patch({"a": []}, patch)
    assert error.value.code == code


def test_strategic_merges_lists_by_key() -> None:
    """Containers merge by name, their ports by number, their environment by name."""
    old = {
        "spec": {
            "containers": [
                {"name": "a", "image": "a:1", "ports": [{"containerPort": 1, "name": "x"}]},
                {"name": "b", "image": "b:1", "env": [{"name": "K", "value": "1"}]},
            ],
            "tolerations": [{"key": "old"}],
        }
    }
    patch = {
        "spec": {
            "containers": [
                {"name": "b", "image": "b:2", "env": [{"name": "L", "value": "2"}]},
                {"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}]},
                {"name": "c", "image": "c:1"},
            ],
            "tolerations": [{"key": "new"}],
        }
    }
    spec = strategic_merge(old, patch)["spec"]
    a, b, c = spec["containers"]
    assert a["ports"] == [{"containerPort": 1, "name": "x", "protocol": "UDP"}]
    assert (b["image"], [e["name"] for e in b["env"]]) == ("b:2", ["K", "L"])
    assert c == {"name": "c", "image": "c:1"}
    assert spec["tolerations"] == [{"key": "new"}]


def test_strategic_directives() -> None:
    """$patch delete and replace, $setElementOrder, $retainKeys, $deleteFromPrimitiveList."""
    old = {
        "metadata": {"finalizers": ["x", "y"]},
        "spec": {
            "volumes": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {}},
            "template": {"old": 1},
        },
    }
    patch = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"]},
        "spec": {
            "volumes": [{"name": "a", "$patch": "delete"}, {"name": "d"}],
            "$setElementOrder/volumes": [{"name": "d"}, {"name": "c"}, {"name": "b"}],
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "template": {"$patch": "replace", "new": 1},
        },
    }
    found = strategic_merge(old, patch)
    assert [v["name"] for v in found["spec"]["volumes"]] == ["d", "c", "b"]
    assert found["spec"]["strategy"] == {"type": "Recreate"}
    assert found["spec"]["template"] == {"new": 1}
    assert found["metadata"]["finalizers"] == ["y", "z"]


def test_strategic_needs_the_merge_key() -> None:
    """An element without its key is refused with the key's name."""
    with pytest.raises(ApiError, match="merge key: name"):
        strategic_merge({}, {"spec": {"containers": [{"image": "a"}]}})


def _config(**spec: Any) -> Any:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def test_apply_owns_list_elements() -> None:
    """Elements of a keyed list belong to who applied them, and go with their last applier."""
    one = [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]
    first = apply({"metadata": {"name": "p"}}, _config(containers=one), "m", False, "now")
    other = apply(first, _config(containers=[{"name": "c", "image": "c"}]), "n", False, "now")
    assert [c["name"] for c in other["spec"]["containers"]] == ["a", "b", "c"]
    last = apply(other, _config(containers=one[:1]), "m", False, "now")
    assert [c["name"] for c in last["spec"]["containers"]] == ["a", "c"]


def test_apply_twice_is_applying_once() -> None:
    """The same configuration again changes nothing, not even the time stamp."""
    config = _config(containers=[{"name": "a", "ports": [{"containerPort": 1}]}])
    first = apply({"metadata": {"name": "p"}}, config, "m", False, "then")
    assert apply(deep_copy(first), config, "m", False, "now") == first


def test_apply_conflict_names_manager_and_field() -> None:
    """Another applier's field with another value is refused unless forced."""
    first = apply({"metadata": {"name": "p"}}, _config(nodeName="x"), "m", False, "now")
    with pytest.raises(ApiError, match=r'conflict with "m": \.spec\.nodeName'):
        apply(deep_copy(first), _config(nodeName="y"), "n", False, "now")
    assert apply(deep_copy(first), _config(nodeName="x"), "n", False, "now")["spec"] == {
        "nodeName": "x"
    }
    forced = apply(deep_copy(first), _config(nodeName="y"), "n", True, "now")
    assert forced["spec"]["nodeName"] == "y"
    # The field changed hands: its first owner dropping it leaves it.
    assert apply(forced, _config(), "m", False, "now")["spec"] == {"nodeName": "y"}
