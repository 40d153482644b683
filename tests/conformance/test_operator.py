"""The operator's definitions on a server that checks schemas."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster_operator.install import install_all
from kube.client import HttpClient
from kube.port import ApiError
from kube.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, CILIUM_NODES, untyped
from model.address import parse_address
from model.endpoint import EndpointId, EndpointState
from model.identity import Identity, NumericIdentity
from model.labels import Labels
from tests.support.kube import Api
from tests.support.lab_api import lab_api
from tests.unit.wire_k8s.test_cilium_kinds import NODE
from wire.k8s.cilium_endpoint import encode_endpoint, encode_status
from wire.k8s.cilium_identity import encode_identity
from wire.k8s.cilium_node import encode_node

IDENTITY = Identity(
    NumericIdentity(65836), Labels.k8s({"app": "shop", "io.kubernetes.pod.namespace": "default"})
)
STATUS = encode_status(
    endpoint=EndpointId(12),
    state=EndpointState.READY,
    identity=IDENTITY,
    addresses=[parse_address("10.11.3.207")],
    node=parse_address("192.0.2.11"),
    identifiers={"k8s-pod-name": "shop-1"},
)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with lab_api(tmp_path) as running_api:
        yield running_api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[HttpClient]:
    async with await api.connect() as connected:
        await install_all(connected, 20)
        yield connected


async def test_what_agents_write_is_kept_whole(client: HttpClient) -> None:
    """No field of ours is pruned or refused."""
    for resource, body in (
        (CILIUM_NODES, encode_node(NODE)),
        (CILIUM_IDENTITIES, encode_identity(IDENTITY)),
        (CILIUM_ENDPOINTS, encode_endpoint("default", "shop-1", "uid", {"app": "shop"}, STATUS)),
    ):
        stored = await client.create(untyped(resource), body)
        del stored["metadata"], body["metadata"]
        assert stored == body


async def test_installing_again_changes_nothing(client: HttpClient) -> None:
    """A restarted operator leaves equal definitions alone."""
    before = await client.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    await install_all(client, 20)
    after = await client.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    assert before == after


async def test_endpoint_status_is_no_subresource(client: HttpClient) -> None:
    """A CiliumEndpoint's status is written with the object, a state that is none is refused."""
    body = encode_endpoint("default", "shop-1", "uid", {}, STATUS)
    await client.create(CILIUM_ENDPOINTS, body)
    change = {"status": {"state": "regenerating"}}
    patched = await client.patch(CILIUM_ENDPOINTS, "shop-1", change, "default")
    assert patched.status is not None
    assert patched.status.state == "regenerating"
    with pytest.raises(ApiError, match="state"):
        await client.patch(CILIUM_ENDPOINTS, "shop-1", {"status": {"state": "happy"}}, "default")


async def test_kubectl_shows_the_expected_columns(api: Api, client: HttpClient) -> None:
    """Short names and columns are what people know from `kubectl get cep`."""
    await client.create(CILIUM_NODES, encode_node(NODE))
    await client.create(CILIUM_IDENTITIES, encode_identity(IDENTITY))
    await client.create(CILIUM_ENDPOINTS, encode_endpoint("default", "shop-1", "uid", {}, STATUS))
    assert await columns(api, "cep") == [
        ["NAME", "SECURITY", "IDENTITY", "ENDPOINT", "STATE", "IPV4", "IPV6"],
        ["shop-1", "65836", "ready", "10.11.3.207"],
    ]
    assert (await columns(api, "cn"))[1][:3] == ["worker-1", "10.11.3.1", "192.0.2.11"]
    assert (await columns(api, "ciliumid"))[1][:2] == ["65836", "default"]


async def columns(api: Api, kind: str) -> list[list[str]]:
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        f"--kubeconfig={api.kubeconfig}",
        "get",
        kind,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [line.split() for line in out.decode().splitlines()]
