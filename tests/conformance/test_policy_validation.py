"""The operator's verdict on policies, on a server that checks schemas and on one that does not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster_operator.install import install_all
from cluster_operator.policies import RESOURCES, Validator
from kube.client import HttpClient
from kube.port import Resource
from kube.resources import CILIUM_POLICIES, CLUSTERWIDE_POLICIES, untyped
from policy.objects.read import Kind
from policy.objects.settings import Settings
from reconcile.tasks import TaskGroup
from tests.support.kube import fake_api
from tests.support.lab_api import lab_api

GOOD: Any = {"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]}
# What a schema cannot see: the prefix of the CIDR, and two kinds of peers in one rule.
BAD: Any = {"endpointSelector": {}, "ingress": [{"fromCIDR": ["10.0.0.0/64"]}]}
MIXED: Any = {
    "endpointSelector": {},
    "ingress": [{"fromCIDR": ["10.0.0.0/8"], "fromEntities": ["world"]}],
}


@pytest.fixture(params=[fake_api, lab_api], ids=["fake", "lab"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HttpClient]:
    async with request.param(tmp_path) as api, await api.connect() as connected:
        if request.param is lab_api:
            await install_all(connected, 20)
        yield connected


@contextlib.asynccontextmanager
async def validating(client: HttpClient) -> AsyncIterator[None]:
    async with TaskGroup() as tasks:
        task = tasks.create_task(Validator(client, Settings()).run())
        yield
        task.cancel()


def body(resource: Resource[Any], name: str, **specs: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": "default"} if resource.namespaced else {})
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        **specs,
    }


async def verdict(client: HttpClient, resource: Resource[Any], name: str, status: str) -> str:
    """The message, once the condition has that status."""
    namespace = "default" if resource.namespaced else ""
    async with asyncio.timeout(30):
        while True:
            found = await client.get(untyped(resource), name, namespace)
            for condition in found.get("status", {}).get("conditions", ()):
                if (condition["type"], condition["status"]) == ("Valid", status):
                    return str(condition["message"])
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", RESOURCES)
async def test_verdicts(client: HttpClient, kind: Kind) -> None:
    """Old objects, new ones, changed ones; every spec counts."""
    resource = RESOURCES[kind]
    namespace = "default" if resource.namespaced else ""
    await client.create(untyped(resource), body(resource, "old", spec=GOOD), namespace)
    async with validating(client):
        assert await verdict(client, resource, "old", "True") == "Policy validation succeeded"
        several = body(resource, "several", spec=GOOD, specs=[BAD, GOOD])
        await client.create(untyped(resource), several, namespace)
        text = await verdict(client, resource, "several", "False")
        assert text.startswith("specs[0].ingress[0].fromCIDR[0]: '10.0.0.0/64' is no CIDR")
        await client.patch(resource, "several", {"specs": [GOOD]}, namespace)
        await verdict(client, resource, "several", "True")
        await client.patch(resource, "old", {"spec": MIXED}, namespace)
        text = await verdict(client, resource, "old", "False")
        assert "combining fromCIDR and fromEntities is not supported yet" in text


async def test_its_own_writing_does_not_wake_it_for_ever(client: HttpClient) -> None:
    """A condition that stands is not written again, by a second operator neither."""
    for resource in (CILIUM_POLICIES, CLUSTERWIDE_POLICIES):
        namespace = "default" if resource.namespaced else ""
        await client.create(untyped(resource), body(resource, "p", spec=BAD), namespace)
    async with validating(client):
        await verdict(client, CILIUM_POLICIES, "p", "False")
        await verdict(client, CLUSTERWIDE_POLICIES, "p", "False")
        before = await client.get(CILIUM_POLICIES, "p", "default")
    async with validating(client):
        marker = body(CILIUM_POLICIES, "marker", spec=GOOD)
        await client.create(untyped(CILIUM_POLICIES), marker, "default")
        await verdict(client, CILIUM_POLICIES, "marker", "True")
        after = await client.get(CILIUM_POLICIES, "p", "default")
    assert before.metadata.resource_version == after.metadata.resource_version
