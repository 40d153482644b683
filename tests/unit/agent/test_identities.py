"""Numbers for labels: used again, made once, never two for one name."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.identities import IdentityAllocator, allocatable
from kube.client import HttpClient
from kube.resources import CILIUM_IDENTITIES
from model.cluster import ClusterId, IdentityRange
from model.identity import Identity, NumericIdentity
from model.labels import Labels
from reconcile.tasks import TaskGroup
from tests.support.kube import Api, fake_api
from wire.k8s.cilium_identity import encode_identity
from wire.k8s.errors import ObjectError

WEB, DB = Labels.k8s({"app": "web"}), Labels.k8s({"app": "db"})


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with fake_api(tmp_path) as found:
        yield found


@pytest.fixture
async def client(api: Api) -> AsyncIterator[HttpClient]:
    async with await api.connect() as found:
        yield found


def allocator(client: HttpClient, first: int = 65792, last: int = 131071) -> IdentityAllocator:
    return IdentityAllocator(client, IdentityRange(first, last))


def test_the_range_of_a_cluster() -> None:
    """Its part of the number space, without the reserved start."""
    assert allocatable(ClusterId(0), 255) == IdentityRange(256, 65535)
    assert allocatable(ClusterId(1), 255) == IdentityRange(65536 + 256, 131071)
    assert allocatable(ClusterId(300), 511).last == (300 << 15) + 32767


async def test_made_once_and_used_again(client: HttpClient, api: Api) -> None:
    """The same labels have the same number; an object says which labels they are."""
    numbers = allocator(client)
    first = await numbers.resolve(WEB)
    assert await numbers.resolve(WEB) == first
    assert (await numbers.resolve(DB)).id != first.id
    assert api.fake is not None
    made = api.fake.objects["ciliumidentities", "", str(first.id)]
    assert made["security-labels"] == {"k8s:app": "web"}


async def test_an_object_of_another_agent_is_used(client: HttpClient) -> None:
    """Oldest first when there are several; one outside our range is not."""
    for number in (70001, 70000, 300):
        identity = Identity(NumericIdentity(number), WEB)
        await client.create(CILIUM_IDENTITIES, encode_identity(identity))
    numbers = allocator(client)
    for obj in await client.list(CILIUM_IDENTITIES):
        if obj.metadata.name != "300":
            numbers.observe(None, obj)
    assert (await numbers.resolve(WEB)).id == 70000


async def test_a_taken_number_is_passed_over(client: HttpClient) -> None:
    """The API server refuses the name: the next number is tried."""
    taken = Identity(NumericIdentity(70000), DB)
    await client.create(CILIUM_IDENTITIES, encode_identity(taken))
    numbers = allocator(client, 70000, 70001)
    assert (await numbers.resolve(WEB)).id == 70001
    with pytest.raises(OSError, match="delete unused CiliumIdentity"):
        await numbers.resolve(Labels.k8s({"app": "third"}))


async def test_two_agents_at_once_agree(client: HttpClient, api: Api) -> None:
    """New labels that several agents meet in the same moment get one number and one object."""
    agents = [allocator(client) for _ in range(4)]
    async with TaskGroup() as tasks:
        asked = [tasks.create_task(a.resolve(WEB)) for a in agents for _ in range(3)]
    assert len({task.result().id for task in asked}) == 1
    assert api.fake is not None
    assert len([key for key in api.fake.objects if key[0] == "ciliumidentities"]) == 1


async def test_an_unreachable_server_loses_no_number(client: HttpClient, api: Api) -> None:
    """After a failure the number is free again."""
    numbers = allocator(client, 70000, 70000)
    api.proxy.close_door()
    with pytest.raises(OSError, match="create"):
        await numbers.resolve(WEB)
    api.proxy.open_door()
    async with asyncio.timeout(60):
        assert (await numbers.resolve(WEB)).id == 70000


async def test_a_deleted_object_is_forgotten(client: HttpClient) -> None:
    """Its number is not given for its labels any more."""
    numbers = allocator(client)
    identity = await numbers.resolve(WEB)
    obj = await client.get(CILIUM_IDENTITIES, str(identity.id))
    numbers.observe(obj, None)
    assert numbers.known(WEB) is None


async def test_an_unusable_object_is_named(client: HttpClient) -> None:
    """A name that is no number is an error of that object."""
    body = {"metadata": {"name": "odd"}, "security-labels": {"k8s:app": "x"}}
    made = await client.create(CILIUM_IDENTITIES, body)
    with pytest.raises(ObjectError, match="CiliumIdentity odd"):
        allocator(client).observe(None, made)
