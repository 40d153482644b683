"""``isthmus policy validate``: exit status and words, on what people paste."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import isthmus

STAR_WARS = """
apiVersion: "cilium.io/v2"
kind: CiliumNetworkPolicy
metadata: {name: rule1}
spec:
  description: "L3-L4 policy to restrict deathstar access to empire ships only"
  endpointSelector: {matchLabels: {org: empire, class: deathstar}}
  ingress:
  - fromEndpoints: [{matchLabels: {org: empire}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""
WITH_HTTP = STAR_WARS.replace(
    "protocol: TCP}]", "protocol: TCP}], rules: {http: [{method: POST, path: /v1/request-landing}]}"
)
MISPLACED = STAR_WARS + "    rules: {http: [{method: GET}]}\n"
HEADERS = WITH_HTTP.replace("method: POST", "headers: {X-My-Header: true}")
DNS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: no-dns, namespace: web}
spec:
  endpointSelector: {}
  egressDeny:
  - toEndpoints: [{matchLabels: {namespace: kube-system, k8s-app: kube-dns}}]
"""
ACROSS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: allow-cross-cluster}
spec:
  endpointSelector: {matchLabels: {name: x-wing, io.cilium.k8s.policy.cluster: cluster1}}
  egress:
  - toEndpoints: [{matchLabels: {name: rebel-base, io.cilium.k8s.policy.cluster: cluster2}}]
"""
UNQUOTED = STAR_WARS.replace('"80"', "80")
MIXED = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: n}
  spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumCIDRGroup
metadata: {name: g}
spec: {externalCIDRs: [10.0.0.0/8]}
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: c}
spec: {nodeSelector: {}, ingress: [{fromEntities: [cluster]}]}
"""


def validate(text: str, *words: str) -> Result:
    return CliRunner().invoke(isthmus, ["policy", "validate", "-f", "-", *words], input=text)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (STAR_WARS, 0, ["-: CiliumNetworkPolicy default/rule1: valid"]),
        (WITH_HTTP, 0, ["not enforced: spec.ingress[0].toPorts[0].rules: http rules"]),
        (MISPLACED, 1, ["error: spec.ingress[0].rules: unknown field"]),
        (HEADERS, 1, ["error: spec.ingress[0].toPorts[0].rules.http[0].headers: must be a list"]),
        (
            UNQUOTED,
            1,
            ["error: spec.ingress[0].toPorts[0].ports[0].port: must be a text", "quotes"],
        ),
        (
            DNS,
            0,
            [
                "warning: spec: denies only",
                "egressDeny[0].toEndpoints[0].matchLabels.namespace: 'namespace' is no label",
            ],
        ),
        (ACROSS, 0, ["warning: spec.endpointSelector: selects nothing in cluster default"]),
        (MIXED, 0, ["NetworkPolicy default/n: valid", "CIDRGroup g: valid", "Policy c: valid"]),
        (
            STAR_WARS.replace("cilium.io/v2", "cilium.io/v3"),
            1,
            ["error: apiVersion: 'cilium.io/v3'"],
        ),
        (STAR_WARS.replace("{name: rule1}", "{}"), 1, ["error: metadata.name: is missing"]),
        (
            STAR_WARS.replace("TCP", "tcp"),
            0,
            ["warning: spec.ingress[0].toPorts[0].ports[0].protocol"],
        ),
        (MIXED.replace("name: c}\nspec", "name: c, namespace: d}\nspec"), 1, ["clusterwide"]),
        (STAR_WARS.replace("org: empire}}]", "org: 2026-01-01}}]"), 0, ["valid"]),
    ],
)
def test_what_people_paste(text: str, status: int, said: list[str]) -> None:
    """Every message has the field's path."""
    done = validate(text)
    assert done.exit_code == status, done.output
    for words in said:
        assert words in done.output


def test_the_cluster_can_be_named() -> None:
    """A policy is judged where it is to be applied."""
    assert "warning" not in validate(ACROSS, "--cluster-name", "cluster1").output


def test_strict() -> None:
    """Warnings count."""
    assert validate(DNS, "--strict").exit_code == 1
    assert validate(STAR_WARS, "--strict").exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is no YAML: line 1"),
        ("{kind: Pod}", "there is no policy in -"),
        ("", "there is no policy in -"),
    ],
)
def test_no_policy(text: str, said: str) -> None:
    """One line, exit 1."""
    done = validate(text)
    assert done.exit_code == 1
    assert said in done.output


def test_files_and_directories(tmp_path: Path) -> None:
    """All manifests of a directory, and JSON for scripts."""
    (tmp_path / "a.yaml").write_text(STAR_WARS)
    (tmp_path / "b.yml").write_text(MISPLACED)
    (tmp_path / "notes.txt").write_text("[")
    words = ["policy", "validate", "-f", str(tmp_path), "-o", "json"]
    done = CliRunner().invoke(isthmus, words)
    assert done.exit_code == 1
    good, bad = json.loads(done.output)
    assert (good["valid"], good["name"], good["errors"]) == (True, "default/rule1", [])
    assert not bad["valid"]
    assert bad["errors"][0]["path"] == "spec.ingress[0].rules"


def test_a_file_that_is_not_there() -> None:
    """Named, exit 1."""
    done = CliRunner().invoke(isthmus, ["policy", "validate", "-f", "/nowhere/x.yaml"])
    assert done.exit_code == 1
    assert "/nowhere/x.yaml: cannot be read" in done.output


def test_node_selectors() -> None:
    """A setting of the cluster decides."""
    text = STAR_WARS.replace("fromEndpoints", "fromNodes")
    assert "enable-node-selector-labels" in validate(text).output
    assert validate(text, "--enable-node-selector-labels").exit_code == 0
