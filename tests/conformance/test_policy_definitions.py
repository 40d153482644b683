"""Policy objects on a server that checks schemas: what it stores, prunes and refuses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from cluster_operator.install import install_all
from kube.client import HttpClient
from kube.port import ApiError, Resource
from kube.resources import (
    CIDR_GROUPS,
    CILIUM_POLICIES,
    CLUSTERWIDE_POLICIES,
    NETWORK_POLICIES,
    untyped,
)
from policy.objects.notes import Node, Notes
from policy.objects.read import Kind, Source, read
from policy.objects.settings import Settings
from tests.fuzz.policies import CILIUM, GROUP, KUBERNETES
from tests.support.kube import Api
from tests.support.lab_api import lab_api
from tests.support.policy_fields import TAKEN

# One server for all of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBJECT = "endpointSelector: {matchLabels: {app: web}}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    directory: Path = tmp_path_factory.mktemp("policies")
    async with lab_api(directory) as running_api:
        async with await running_api.connect() as client:
            await install_all(client, 20)
        yield running_api


@pytest_asyncio.fixture(loop_scope="module")
async def client(api: Api) -> AsyncIterator[HttpClient]:
    async with await api.connect() as connected:
        yield connected


def manifest(resource: Resource[Any], name: str, spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if resource.namespaced:
        metadata["namespace"] = "default"
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "spec": spec,
    }


async def stored(client: HttpClient, resource: Resource[Any], name: str, spec: Any) -> Any:
    """What the server keeps of a spec."""
    namespace = "default" if resource.namespaced else ""
    found = await client.create(untyped(resource), manifest(resource, name, spec), namespace)
    await client.delete(resource, name, namespace)
    return found["spec"]


@pytest.mark.parametrize(
    ("resource", "spec"),
    [
        (CILIUM_POLICIES, CILIUM["spec"]),
        (CLUSTERWIDE_POLICIES, CILIUM["spec"]),
        (NETWORK_POLICIES, KUBERNETES["spec"]),
        (CIDR_GROUPS, GROUP["spec"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Resource) else "",
)
async def test_kept_whole(client: HttpClient, resource: Resource[Any], spec: Any) -> None:
    """No field that is read is pruned."""
    assert await stored(client, resource, "whole", spec) == spec


RULED = """
endpointSelector: {}
ingress:
- toPorts:
  - ports: [{port: "443", protocol: TCP}]
    terminatingTLS: {secret: {name: s, namespace: n}, certificate: a, privateKey: b, trustedCA: c}
    originatingTLS: {secret: {name: s}}
    serverNames: [a.example.com]
    rules:
      http:
      - {method: GET, path: /a, host: h, headers: ["X-A: b"],
         headerMatches: [{name: X-B, value: c, mismatch: ADD, secret: {name: s, namespace: n}}]}
- toPorts: [{ports: [{port: "9092", protocol: TCP}], rules: {kafka: [{role: produce, topic: t}]}}]
- toPorts: [{ports: [{port: "1", protocol: TCP}], rules: {l7proto: r2d2, l7: [{cmd: READ}]}}]
- fromGroups: [{aws: {labels: {a: b}, region: r, securityGroupsIds: [x], securityGroupsNames: [y]}}]
- fromNodes: [{matchLabels: {a: b}}]
egress:
- toServices: [{k8sServiceSelector: {selector: {matchLabels: {a: b}}, namespace: n}}]
- toCIDRSet: [{cidrGroupRef: g, except: [10.0.0.0/8]}]
- toPorts:
  - ports: [{port: "53", endPort: 54, protocol: ANY}]
    listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: e}, name: l, priority: 3}
egressDeny:
- toServices: [{k8sService: {serviceName: s, namespace: n}}]
- {icmps: [{fields: [{type: 8, family: IPv4}, {type: EchoRequest, family: IPv6}]}]}
description: words
log: {value: words}
"""


async def test_every_field_is_in_the_schema(client: HttpClient) -> None:
    """Also of what is not enforced; and the reader knows each of them."""
    spec = yaml.safe_load(RULED)
    assert await stored(client, CILIUM_POLICIES, "ruled", spec) == spec
    reading = read(Source(Kind.CILIUM, "default", "ruled", spec), Settings(node_selectors=True))
    assert (reading.errors, reading.unknown) == ((), ())


async def test_what_the_reader_takes_is_kept(client: HttpClient) -> None:
    """Field by field, in each list where it may stand; the schema and the reader know the same."""
    for name, text in TAKEN.items():
        spec = yaml.safe_load("{" + SUBJECT + ", " + text + "}")
        given = {key: value for key, value in spec.items() if value is not None}
        assert await stored(client, CILIUM_POLICIES, "taken", spec) == given, name


PORTS = "ingress: [{{toPorts: [{{ports: [{}]}}]}}]"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("nodeSelector: {}", "spec"),
        (PORTS.format("{port: 80}"), "port"),
        (PORTS.format("{protocol: TCP}"), "port"),
        (PORTS.format("{port: '65536x-'}"), "port"),
        (PORTS.format("{port: '1', protocol: tcp}"), "protocol"),
        (PORTS.format("{port: '1', endPort: 70000}"), "endPort"),
        (PORTS.format("{port: '1'}, " * 41), "ports"),
        ("ingress: [{fromEntities: [everybody]}]", "fromEntities"),
        ("ingress: [{icmps: [{fields: [{family: IPv5, type: 1}]}]}]", "family"),
        ("ingress: [{authentication: {}}]", "mode"),
        ("ingress: {}", "ingress"),
        ("ingress: [{toPorts: [{rules: {http: [{headers: {X-My: true}}]}}]}]", "headers"),
        ("ingress: [{fromEndpoints: [{matchLabels: {app: 5}}]}]", "app"),
        (
            "ingress: [{fromEndpoints: [{matchExpressions: [{key: a, operator: Is}]}]}]",
            "operator",
        ),
    ],
)
async def test_refused(client: HttpClient, spec: str, field: str) -> None:
    """The server names the field."""
    read_ = yaml.safe_load("{" + SUBJECT + ", " + spec + "}")
    await refused(client, read_, field)


async def test_a_subject_is_needed(client: HttpClient) -> None:
    """Neither selector."""
    await refused(client, {"ingress": [{}]}, "spec")


async def refused(client: HttpClient, spec: Any, field: str) -> None:
    body = manifest(CILIUM_POLICIES, "refused", spec)
    with pytest.raises(ApiError) as error:
        await client.create(untyped(CILIUM_POLICIES), body, "default")
    assert error.value.status == 422
    assert field in str(error.value)


@pytest.mark.parametrize("port", ["0x50", "80abc", "8_0", "010", "080", "http", "HTTP-2"])
async def test_ports_that_the_reader_judges(client: HttpClient, port: str) -> None:
    """Cilium's server stores these; whether it is a number, a name or nothing is read later."""
    spec = yaml.safe_load("{" + SUBJECT + ", " + PORTS.format(f"{{port: '{port}'}}") + "}")
    assert await stored(client, CILIUM_POLICIES, "odd", spec) == spec


async def test_unknown_fields_are_pruned(client: HttpClient) -> None:
    """What a server drops is what the reader calls unknown."""
    spec = yaml.safe_load(
        "{" + SUBJECT + ", ingress: [{toPorts: [{ports: [{port: '80'}]}], rules: {http: [{}]}}], "
        "egressDeny: [{toFQDNs: [{matchName: a.com}], "
        "toPorts: [{ports: [{port: '1'}], rules: {}}], authentication: {mode: required}}]}"
    )
    unknown = read(Source(Kind.CILIUM, "default", "p", spec), Settings()).unknown
    kept = await stored(client, CILIUM_POLICIES, "pruned", spec)
    assert len(unknown) == 4
    assert read(Source(Kind.CILIUM, "default", "p", kept), Settings()).unknown == ()
    for finding in unknown:
        assert _at(spec, finding.path) is not None
        assert _at(kept, finding.path) is None


def _at(spec: Any, path: str) -> Any:
    found = Node({"spec": spec}, "", Notes()).value
    for step in path.replace("]", "").replace("[", ".").split("."):
        if found is None:
            return None
        found = found[int(step)] if isinstance(found, list) else found.get(step)
    return found


async def test_null_is_absent(client: HttpClient) -> None:
    """As with every definition that does not say otherwise."""
    spec = yaml.safe_load("{" + SUBJECT + ", ingress: null, egress: [{toEndpoints: null}]}")
    kept = await stored(client, CILIUM_POLICIES, "null", spec)
    assert "ingress" not in kept
    assert kept["egress"] == [{}]


async def test_groups_need_their_list(client: HttpClient) -> None:
    """It may be empty, not absent."""
    await stored(client, CIDR_GROUPS, "empty", {"externalCIDRs": []})
    with pytest.raises(ApiError, match="externalCIDRs"):
        await stored(client, CIDR_GROUPS, "absent", {})


async def kubectl(api: Api, *words: str) -> list[list[str]]:
    process = await asyncio.create_subprocess_exec(
        "kubectl", f"--kubeconfig={api.kubeconfig}", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [line.split() for line in out.decode().splitlines()]


async def test_columns(api: Api, client: HttpClient) -> None:
    """`kubectl get` with the short names; VALID is empty until the operator has judged."""
    spec = yaml.safe_load("{" + SUBJECT + ", ingress: [{}]}")
    for resource in (CILIUM_POLICIES, CLUSTERWIDE_POLICIES):
        namespace = "default" if resource.namespaced else ""
        body = manifest(resource, "shown", spec)
        await client.create(untyped(resource), body, namespace)
    condition = {
        "type": "Valid",
        "status": "True",
        "reason": "",
        "message": "Policy validation succeeded",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await client.patch_status(CILIUM_POLICIES, "shown", {"conditions": [condition]}, "default")
    for short in ("cnp", "ciliumnp"):
        header, row = await kubectl(api, "get", short, "-A")
        assert header == ["NAMESPACE", "NAME", "AGE", "VALID"]
        assert (row[0], row[1], row[3]) == ("default", "shown", "True")
    header, row = await kubectl(api, "get", "ccnp")
    assert header == ["NAME", "AGE", "VALID"]
    assert len(row) == 2
    await client.create(untyped(CIDR_GROUPS), manifest(CIDR_GROUPS, "shown", GROUP["spec"]))
    assert (await kubectl(api, "get", "ccg"))[0] == ["NAME", "AGE"]


async def test_status_is_a_subresource(client: HttpClient) -> None:
    """Who writes the spec does not write the status."""
    body = manifest(CILIUM_POLICIES, "status", yaml.safe_load("{" + SUBJECT + ", ingress: [{}]}"))
    body["status"] = {"conditions": [{"type": "Valid", "status": "True"}]}
    found = await client.create(untyped(CILIUM_POLICIES), body, "default")
    await client.delete(CILIUM_POLICIES, "status", "default")
    assert not found.get("status")
