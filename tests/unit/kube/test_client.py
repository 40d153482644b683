"""What only the fake can show: exec, logs, tokens, back-off."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kube.client import HttpClient
from kube.informer import BACKOFF_LAST_S, Informer, backoff_s
from kube.port import ApiError, Resource
from kube.resources import ALL, CILIUM_ENDPOINTS, CONFIG_MAPS, NODES, PODS
from reconcile.tasks import TaskGroup
from tests.support.kube import Api, Recorder, fake_api, running, until


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with fake_api(tmp_path) as running_api:
        yield running_api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[HttpClient]:
    async with await api.connect() as connected:
        yield connected


async def test_every_request_carries_the_token(api: Api, client: HttpClient) -> None:
    """Authentication is on reads, writes and watches alike."""
    assert api.fake is not None
    await client.list(NODES)
    await client.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "d"}})
    async with running(Informer(client, NODES)):
        pass
    assert set(api.fake.tokens) == {"Bearer secret-token"}


async def test_exec_tells_output_and_exit_code(client: HttpClient) -> None:
    """Words arrive as they are; both streams and the code come back."""
    result = await client.exec("d", "p", "c", ["echo", "a b", "&?=ü"])
    assert (result.stdout, result.stderr, result.exit_code) == ("a b &?=ü\n".encode(), b"", 0)
    result = await client.exec("d", "p", "", ["false"])
    assert (result.stdout, result.stderr, result.exit_code) == (b"", b"it is false\n", 1)


async def test_exec_ends_its_input(client: HttpClient) -> None:
    """A command that reads to the end of its input ends."""
    result = await client.exec("d", "p", "c", ["cat"], stdin=b"hello")
    assert result.stdout == b"hello"


async def test_exec_of_no_command(client: HttpClient) -> None:
    """A command that cannot be started is an error, not an exit code."""
    with pytest.raises(ApiError, match="cannot exec in pod d/p: nothing: no such command"):
        await client.exec("d", "p", "c", ["nothing"])


async def test_exec_has_a_deadline(client: HttpClient) -> None:
    """A command that hangs is given up and named."""
    with pytest.raises(TimeoutError, match=r"cannot exec in pod d/p: hang took more than 0\.2 s"):
        await client.exec("d", "p", "c", ["hang"], timeout=0.2)


async def test_logs(api: Api, client: HttpClient) -> None:
    """Logs are read whole and followed in pieces."""
    assert api.fake is not None
    api.fake.logs["d", "p"] = "one\ntwo\n"
    assert await client.logs("d", "p") == "one\ntwo\n"
    assert b"".join([piece async for piece in client.follow_logs("d", "p")]) == b"one\ntwo\n"


async def test_informer_waits_for_a_server_that_is_away(api: Api, client: HttpClient) -> None:
    """Without a server it tells so in its status, and goes on when there is one."""
    api.proxy.close_door()
    informer = Informer(client, NODES, draw=lambda: 0.0)
    async with TaskGroup() as group:
        task = group.create_task(informer.run())
        async with asyncio.timeout(60):
            await until(lambda: informer.status.failures >= 2)
            assert "cannot list nodes" in informer.status.error
            api.proxy.open_door()
            await informer.synced.wait()
        assert informer.status.connected
        assert informer.status.failures == 0
        task.cancel()


async def test_informer_lists_again_when_the_store_is_made_anew(
    api: Api, client: HttpClient
) -> None:
    """A server whose store was made anew is behind our revision: its objects replace ours."""
    assert api.fake is not None
    await client.create(CONFIG_MAPS, {"metadata": {"name": "old", "namespace": "d"}})
    seen = Recorder()
    async with running(Informer(client, CONFIG_MAPS, seen, draw=lambda: 0.0)):
        api.fake.objects.clear()
        api.fake.history.clear()
        api.fake.revision = 5
        api.proxy.cut()
        await client.create(CONFIG_MAPS, {"metadata": {"name": "new", "namespace": "d"}})
        await seen.until(lambda: len(seen.changes) == 3)
    assert seen.told() == [("added", "old"), ("deleted", "old"), ("added", "new")]


async def test_unreadable_metadata_does_not_stop_a_watch(api: Api, client: HttpClient) -> None:
    """An object that even lacks a readable name is counted, and the next one is told."""
    assert api.fake is not None
    seen = Recorder()
    informer = Informer(client, CILIUM_ENDPOINTS, seen)
    async with running(informer):
        api.fake.inject("ciliumendpoints", {"metadata": {"name": "x", "labels": {"a": 1}}})
        await client.create(CILIUM_ENDPOINTS, {"metadata": {"name": "a", "namespace": "d"}})
        await seen.until(lambda: len(seen.changes) == 1)
    assert informer.rejected == 1
    assert informer.status.watches == 1


def test_backoff_grows_to_its_limit_and_is_spread() -> None:
    """Waits double up to the limit; the draw spreads them over the upper half."""
    waits = [backoff_s(n, 1.0) for n in range(1, 60)]
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_LAST_S
    assert backoff_s(4, 0.0) == backoff_s(4, 1.0) / 2


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (PODS, "/api/v1/namespaces/d/pods/p/log"),
        (CILIUM_ENDPOINTS, "/apis/cilium.io/v2/namespaces/d/ciliumendpoints/p/log"),
    ],
)
def test_paths(resource: Resource[object], path: str) -> None:
    """Core and named groups."""
    assert resource.path("d", "p", "log") == path


def test_namespaced_object_needs_its_namespace() -> None:
    """Forgetting it is found before the server is asked."""
    with pytest.raises(ValueError, match="Pod p: a namespace is needed"):
        PODS.path("", "p")


def test_resources_are_listed_once() -> None:
    """No kind stands twice in the table."""
    assert len({(r.group, r.plural) for r in ALL}) == len(ALL)
