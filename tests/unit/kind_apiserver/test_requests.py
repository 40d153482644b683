"""Paths, Accept headers, tokens, discovery, versions."""

import msgspec
import pytest

from kind.apiserver import discovery, protobuf, tokens
from kind.apiserver.errors import ApiError
from kind.apiserver.request import Target, decode_body, delete_options, parse_accept, parse_path
from kind.apiserver.resources import BUILTIN, Registry, version_rank
from kind.apiserver.versions import to_shown, to_stored

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("", "v1", "pods")),
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/api/v1/namespaces/x", Target("", "v1", "namespaces", name="x")),
        ("/api/v1/namespaces/x/status", Target("", "v1", "namespaces", "", "x", "status")),
        ("/api/v1/namespaces/x/pods", Target("", "v1", "pods", "x")),
        ("/api/v1/namespaces/x/pods/p/log", Target("", "v1", "pods", "x", "p", "log")),
        ("/apis/apps/v1/deployments/", Target("apps", "v1", "deployments")),
        ("/apis/a.b/v2/namespaces/n/xs/y", Target("a.b", "v2", "xs", "n", "y")),
        ("/api/v1/watch/pods", Target("", "v1", "pods", watch=True)),
    ],
)
def test_paths(path: str, target: Target) -> None:
    """Namespaces are both a resource and the place of others."""
    assert parse_path(path) == target


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/apis", "/apis/apps/v1", "/healthz"])
def test_paths_of_no_resource(path: str) -> None:
    """Discovery and health are no resources."""
    assert parse_path(path) is None


def test_accept() -> None:
    """The first form that we have wins; protobuf alone is refused."""
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    assert parse_accept(table).shape == "table"
    assert parse_accept("application/vnd.kubernetes.protobuf,application/json").shape == "object"
    assert parse_accept("*/*").media == "application/json"
    with pytest.raises(ApiError) as error:
        parse_accept("application/vnd.kubernetes.protobuf")
    assert error.value.code == 406


def test_delete_options() -> None:
    """Query beats body; nonsense is refused."""
    found = delete_options({"gracePeriodSeconds": "3"}, {"gracePeriodSeconds": 9})
    assert found.grace_s == 3
    assert delete_options({}, {"orphanDependents": True}).propagation == "Orphan"
    for query, body in (
        ({"propagationPolicy": "Sideways"}, {}),
        ({}, {"gracePeriodSeconds": -1}),
        ({"dryRun": "Some"}, {}),
    ):
        with pytest.raises(ApiError):
            delete_options(query, body)


def test_token_file() -> None:
    """Tokens with and without groups; a short line is named."""
    users = tokens.parse_token_file('# comment\nt,alice,1,"a,b"\nu,bob,2\n\n')
    assert users["t"].groups == ("a", "b", "system:authenticated")
    assert users["u"].name == "bob"
    with pytest.raises(ValueError, match="line 2"):
        tokens.parse_token_file("t,alice,1\nbroken")


def test_issued_tokens() -> None:
    """A token of ours stands for its account until it expires; any change of it does not."""
    token = tokens.issue(KEY, "ns", "robot", "uid-1", 1000, 600, [])
    user = tokens.verify(KEY, token, 1500)
    assert user is not None
    assert user.name == "system:serviceaccount:ns:robot"
    assert "system:serviceaccounts:ns" in user.groups
    assert tokens.verify(KEY, token, 1700) is None
    assert tokens.verify(b"other", token, 1500) is None
    head, claims, signature = token.split(".")
    for bad in (f"{head}.{claims}x.{signature}", f"{head}.{claims}", "a.b.c", "", "..", "ü.ü.ü"):
        assert tokens.verify(KEY, bad, 1500) is None


def test_order_of_versions() -> None:
    """Stable before beta before alpha, higher before lower."""
    names = ["v1alpha1", "v2", "v1beta2", "v10", "other", "v1beta1", "v1"]
    ordered = sorted(names, key=version_rank, reverse=True)
    assert ordered == ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "other"]


def test_discovery_is_consistent() -> None:
    """Each resource is found under its path, in plain and in aggregated discovery."""
    registry = Registry()
    seen = set()
    for core in (True, False):
        for group in discovery.aggregated(registry, core, "v2")["items"]:
            for version in group["versions"]:
                name = group["metadata"].get("name", "")
                listed = discovery.resource_list(registry, name, version["version"])
                assert listed is not None
                plain = {r["name"] for r in listed["resources"] if "/" not in r["name"]}
                assert plain == {r["resource"] for r in version["resources"]}
                seen |= {(name, p) for p in plain}
    assert seen == {(r.group, r.plural) for r in BUILTIN}


def test_openapi_document_is_protobuf() -> None:
    """The minimal document is well-formed: its fields read back."""
    fields = dict(protobuf._fields(discovery.OPENAPI_V2_PROTOBUF))
    assert fields[1] == b"2.0"
    info = fields[2]
    assert isinstance(info, bytes)
    assert dict(protobuf._fields(info))[1] == b"Kubernetes"


def test_event_versions() -> None:
    """An event keeps its facts through both groups."""
    registry = Registry()
    newer = registry.find("events.k8s.io", "v1", "events")
    older = registry.find("", "v1", "events")
    assert newer is not None
    assert older is not None
    event = {"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "p"}}
    shown = to_shown(newer, event)
    assert shown["note"] == "m"
    assert to_stored(newer, shown) == event
    assert to_shown(older, event) is event


def test_bodies() -> None:
    """JSON and YAML are read; what is neither is refused with the reason."""
    assert decode_body(b'{"a":1}', "application/json") == {"a": 1}
    assert decode_body(b"a: 1", "application/yaml") == {"a": 1}
    with pytest.raises(ApiError, match="not valid"):
        decode_body(b"{", "application/json")
    with pytest.raises(ApiError, match="not valid"):
        decode_body(b"a: [", "application/apply-patch+yaml")


def _wire(number: int, payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def test_protobuf_body() -> None:
    """A ConfigMap in protobuf becomes the object that JSON would have been."""
    entry = _wire(1, b"key") + _wire(2, b"value")
    inner = _wire(1, _wire(1, b"name") + _wire(2, b"")) + _wire(2, entry)
    envelope = _wire(1, _wire(1, b"v1") + _wire(2, b"ConfigMap")) + _wire(2, inner)
    assert protobuf.decode(b"k8s\0" + envelope) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "name"},
        "data": {"key": "value"},
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\0\x0a",
        b"k8s\0\x0a\x7f",
        b"k8s\0" + _wire(1, _wire(2, b"Pod")),
        b"k8s\0" + _wire(1, _wire(2, b"ConfigMap")) + _wire(2, _wire(15, b"x")),
        b"k8s\0" + _wire(1, _wire(2, b"ConfigMap")) + _wire(2, b"\x0d1234"),
        b"k8s\0" + _wire(1, _wire(2, b"ConfigMap")) + _wire(2, _wire(1, _wire(1, b"\xff"))),
        b"k8s\0" + b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_protobuf_refusals(data: bytes) -> None:
    """Whatever is not understood completely is refused with 415."""
    with pytest.raises(ApiError) as error:
        protobuf.decode(data)
    assert error.value.code == 415
    assert msgspec.json.encode(error.value.status())
