"""kind.kubelet.podspec: what a pod object means for the node."""

import base64
from typing import Any

import pytest

from kind.kubelet import podspec
from kind.kubelet.podspec import Facts, Sources, SpecError

FACTS = Facts("node-1", ["172.20.1.1"], ["10.1.1.9"], "10.101.0.1", 443)


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u-1",
            "labels": {"b": '2"', "a": "1"},
            "annotations": {"k": "v"},
        },
        "spec": {"containers": [{"name": "c"}], **spec},
    }


def sources(maps: dict[str, Any] | None = None, secrets: dict[str, Any] | None = None) -> Sources:
    return Sources(lambda name: (maps or {}).get(name), lambda name: (secrets or {}).get(name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$(A", "$(A"),
        ("$(A)$(A)", "11"),
        ("$", "$"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    """Known names are replaced, unknown ones stay, ``$$`` is a dollar."""
    assert podspec.expand(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "172.20.1.1"),
        ("status.podIP", "10.1.1.9"),
        ("metadata.labels['a']", "1"),
        ("metadata.labels['missing']", ""),
        ("metadata.annotations['k']", "v"),
        ("metadata.labels", 'a="1"\nb="2\\""\n'),
    ],
)
def test_fields(path: str, expected: str) -> None:
    """Every field of the downward API that the lab has."""
    assert podspec.field_value(pod(), path, FACTS) == expected


def test_unknown_field_names_itself() -> None:
    """A field that cannot be asked for is refused by name."""
    with pytest.raises(SpecError, match=r"spec\.color"):
        podspec.field_value(pod(), "spec.color", FACTS)


def test_environment_order_and_sources() -> None:
    """Later entries see earlier ones; envFrom comes first; optional sources may be missing."""
    container = {
        "name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [
            {"name": "ONE", "value": "1"},
            {"name": "TWO", "value": "$(ONE)+$(P_x)"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {
                "name": "GONE",
                "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}},
            },
        ],
    }
    secret = {"data": {"k": base64.b64encode(b"deep").decode()}}
    env = podspec.environment(
        pod(), container, FACTS, sources({"m": {"data": {"x": "7"}}}, {"s": secret})
    )
    assert env["TWO"] == "1+7"
    assert env["NODE"] == "node-1"
    assert env["S"] == "deep"
    assert "GONE" not in env
    assert env["KUBERNETES_SERVICE_HOST"] == "10.101.0.1"


def test_missing_source_is_named() -> None:
    """A ConfigMap that is not there and not optional is named in the error."""
    ref = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}
    with pytest.raises(SpecError, match='configmap "settings" not found'):
        podspec.environment(pod(), {"name": "c", "env": [ref]}, FACTS, sources())


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, ["run", "fast"]),
        ({"args": ["slow"]}, ["run", "slow"]),
        ({"command": ["other"]}, ["other"]),
        ({"command": ["other", "$(A)"], "args": ["x"]}, ["other", "1", "x"]),
    ],
)
def test_command_and_args(container: dict[str, Any], expected: list[str]) -> None:
    """The table of the Kubernetes documentation on ENTRYPOINT and CMD."""
    assert podspec.argv(container, ["run"], ["fast"], {"A": "1"}) == expected


def test_projected_volume() -> None:
    """Token, CA and namespace come together as the service account's directory needs them."""
    full = podspec.with_service_account(pod())
    volume = full["spec"]["volumes"][0]
    maps = {"kube-root-ca.crt": {"data": {"ca.crt": "PEM"}}}
    files = podspec.volume_files(volume, full, FACTS, sources(maps), "secret-token")
    assert files == {"token": b"secret-token", "ca.crt": b"PEM", "namespace": b"shop"}
    mount = full["spec"]["containers"][0]["volumeMounts"][0]
    assert mount["mountPath"] == podspec.SERVICE_ACCOUNT_PATH


def test_service_account_is_added_once() -> None:
    """What admission already added stays as it is, and a refusal is respected."""
    once = podspec.with_service_account(pod())
    assert podspec.with_service_account(once) == once
    refused = pod(automountServiceAccountToken=False)
    assert podspec.with_service_account(refused) == refused


def test_items_choose_and_rename() -> None:
    """``items`` shows only the keys it names, under the paths it gives."""
    volume = {"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": "d/f"}]}}
    data = {"m": {"data": {"a": "1", "b": "2"}}}
    assert podspec.volume_files(volume, pod(), FACTS, sources(data), "") == {"d/f": b"1"}


def test_optional_volume_is_empty() -> None:
    """An optional ConfigMap that is missing gives an empty directory, another one an error."""
    volume = {"name": "v", "configMap": {"name": "m", "optional": True}}
    assert podspec.volume_files(volume, pod(), FACTS, sources(), "") == {}
    with pytest.raises(SpecError, match="not found"):
        podspec.volume_files(
            {"name": "v", "secret": {"secretName": "s"}}, pod(), FACTS, sources(), ""
        )


def test_referenced_objects() -> None:
    """Projected sources count as well: their change must reach the files."""
    volumes = [
        {"name": "a", "configMap": {"name": "m"}},
        {"name": "b", "secret": {"secretName": "s"}},
        {"name": "c", "projected": {"sources": [{"secret": {"name": "t"}}]}},
    ]
    assert podspec.referenced(pod(volumes=volumes)) == {
        ("configmap", "m"),
        ("secret", "s"),
        ("secret", "t"),
    }


def test_resolv_conf() -> None:
    """An ordinary pod asks the cluster DNS, one on the node's network does not."""
    text = podspec.resolv_conf(pod(), "10.101.0.10", "cluster.local")
    assert text == (
        "nameserver 10.101.0.10\n"
        "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )
    assert podspec.resolv_conf(pod(hostNetwork=True), "10.101.0.10", "cluster.local") == ""
    asked = pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")
    assert podspec.resolv_conf(asked, "10.101.0.10", "cluster.local") == text


def test_hosts_file_has_aliases() -> None:
    """``hostAliases`` reach /etc/hosts: the mesh finds remote clusters by them."""
    aliases = [{"ip": "172.20.2.1", "hostnames": ["cluster2.mesh.cilium.io"]}]
    text = podspec.hosts_file(pod(hostAliases=aliases), "web", ["10.1.1.9"])
    assert "172.20.2.1\tcluster2.mesh.cilium.io\n" in text
    assert "10.1.1.9\tweb\n" in text
