"""One suite for API servers: what ``kube`` relies on, run against the fake and a real one."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kube.client import HttpClient
from kube.informer import Informer
from kube.port import ApiError, PatchKind, Resource, UnreachableError
from kube.resources import CILIUM_ENDPOINTS, CONFIG_MAPS, CRDS, NODES, PODS, untyped
from tests.support.kube import Api, Recorder, fake_api, running
from tests.support.lab_api import lab_api

SERVERS = {"fake": fake_api, "lab": lab_api}


@pytest.fixture(params=SERVERS)
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    async with SERVERS[request.param](tmp_path) as running_api:
        yield running_api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[HttpClient]:
    async with await api.connect() as connected:
        yield connected


def config_map(name: str, namespace: str = "default", **data: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


async def test_created_object_is_read_back(client: HttpClient) -> None:
    """What was created is what get and list answer, with a uid and a resourceVersion."""
    made = await client.create(CONFIG_MAPS, config_map("one", a="1"))
    read = await client.get(CONFIG_MAPS, "one", "default")
    assert read == made
    assert read.data == {"a": "1"}
    assert read.metadata.uid
    assert read.metadata.resource_version
    assert [m.metadata.name for m in await client.list(CONFIG_MAPS, "default")] == ["one"]


async def test_missing_object_names_verb_and_object(client: HttpClient) -> None:
    """A 404 is an ApiError that says what was tried on what."""
    with pytest.raises(ApiError, match="cannot get ConfigMap default/nothing") as caught:
        await client.get(CONFIG_MAPS, "nothing", "default")
    assert caught.value.not_found
    assert caught.value.reason == "NotFound"


async def test_second_create_is_refused(client: HttpClient) -> None:
    """AlreadyExists is told apart from a conflict of versions."""
    await client.create(CONFIG_MAPS, config_map("one"))
    with pytest.raises(ApiError) as caught:
        await client.create(CONFIG_MAPS, config_map("one"))
    assert caught.value.already_exists
    assert not caught.value.conflict


async def test_update_of_an_old_version_conflicts(client: HttpClient) -> None:
    """An update carries its resourceVersion; the second writer loses."""
    raw = untyped(CONFIG_MAPS)
    await client.create(raw, config_map("one", a="1"))
    first = await client.get(raw, "one", "default")
    changed = await client.update(raw, {**first, "data": {"a": "2"}})
    assert changed["data"] == {"a": "2"}
    with pytest.raises(ApiError) as caught:
        await client.update(raw, {**first, "data": {"a": "3"}})
    assert caught.value.conflict


async def test_patch_of_an_old_version_conflicts(client: HttpClient) -> None:
    """When it names one."""
    raw = untyped(CONFIG_MAPS)
    first = await client.create(raw, config_map("one", a="1"))

    def patch(value: str) -> dict[str, object]:
        version = first["metadata"]["resourceVersion"]
        return {"metadata": {"resourceVersion": version}, "data": {"a": value}}

    changed = await client.patch(raw, "one", patch("2"), "default")
    assert changed["data"] == {"a": "2"}
    with pytest.raises(ApiError) as caught:
        await client.patch(raw, "one", patch("3"), "default")
    assert caught.value.conflict


async def test_patches(client: HttpClient) -> None:
    """Merge patches remove by null, JSON patches by operation, apply creates what is not there."""
    await client.create(CONFIG_MAPS, config_map("one", a="1", b="2"))
    merged = await client.patch(CONFIG_MAPS, "one", {"data": {"a": None, "c": "3"}}, "default")
    assert merged.data == {"b": "2", "c": "3"}
    operations = [
        {"op": "test", "path": "/data/c", "value": "3"},
        {"op": "replace", "path": "/data/c", "value": "4"},
        {"op": "add", "path": "/data/d", "value": "5"},
        {"op": "remove", "path": "/data/b"},
    ]
    patched = await client.patch(CONFIG_MAPS, "one", operations, "default", kind=PatchKind.JSON)
    assert patched.data == {"c": "4", "d": "5"}
    for value in ("1", "2"):
        applied = await client.patch(
            CONFIG_MAPS, "two", config_map("two", x=value), "default", kind=PatchKind.APPLY
        )
        assert applied.data == {"x": value}


async def test_status_is_patched_apart(client: HttpClient) -> None:
    """A status patch changes the status and nothing else."""
    node = {"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.1.0.0/24"}}
    await client.create(NODES, node)
    conditions = [{"type": "Ready", "status": "True"}]
    patched = await client.patch_status(NODES, "n1", {"conditions": conditions})
    assert patched.ready
    assert patched.pod_cidrs == ("10.1.0.0/24",)


async def test_delete_keeps_to_its_preconditions(client: HttpClient) -> None:
    """A delete of another incarnation is refused, one of a missing object is fine."""
    made = await client.create(CONFIG_MAPS, config_map("one"))
    with pytest.raises(ApiError) as caught:
        await client.delete(CONFIG_MAPS, "one", "default", uid="someone-else")
    assert caught.value.conflict
    await client.delete(CONFIG_MAPS, "one", "default", uid=made.metadata.uid)
    await client.delete(CONFIG_MAPS, "one", "default")
    with pytest.raises(ApiError):
        await client.delete(CONFIG_MAPS, "one", "default", missing_ok=False)
    assert await client.list(CONFIG_MAPS, "default") == []


async def test_list_is_put_together_from_pages(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list longer than a page is complete."""
    monkeypatch.setattr("kube.client.PAGE", 3)
    for number in range(8):
        await client.create(CONFIG_MAPS, config_map(f"c{number}"))
    names = [m.metadata.name for m in await client.list(CONFIG_MAPS, "default")]
    assert sorted(names) == [f"c{number}" for number in range(8)]


async def test_selectors(client: HttpClient) -> None:
    """Label and field selectors narrow a list; an agent lists the pods of its node only."""
    for name, node, app in (("p1", "n1", "a"), ("p2", "n2", "a"), ("p3", "n1", "b")):
        await client.create(PODS, pod(name, node, app))
    by_node = await client.list(PODS, field_selector="spec.nodeName=n1")
    assert sorted(p.metadata.name for p in by_node) == ["p1", "p3"]
    by_app = await client.list(PODS, "default", label_selector="app=a")
    assert sorted(p.metadata.name for p in by_app) == ["p1", "p2"]


def pod(name: str, node: str, app: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
    }


async def test_unreachable_server_is_an_oserror(api: Api, client: HttpClient) -> None:
    """Without a server there is an OSError that names the server, not a library's exception."""
    api.proxy.close_door()
    with pytest.raises(UnreachableError, match=r"cannot list nodes: https?://127"):
        await client.list(NODES)


async def test_informer_tells_the_present_then_each_change(client: HttpClient) -> None:
    """The first list comes as additions before ``synced``; changes follow in order."""
    await client.create(CONFIG_MAPS, config_map("old"))
    seen = Recorder()
    async with running(Informer(client, CONFIG_MAPS, seen, namespace="default")):
        assert seen.told() == [("added", "old")]
        await client.create(CONFIG_MAPS, config_map("new", a="1"))
        await client.patch(CONFIG_MAPS, "new", {"data": {"a": "2"}}, "default")
        await client.delete(CONFIG_MAPS, "old", "default")
        await seen.until(lambda: len(seen.changes) == 4)
    assert seen.told()[1:] == [("added", "new"), ("changed", "new"), ("deleted", "old")]


async def test_informer_keeps_to_its_selectors(client: HttpClient) -> None:
    """A pod that comes to match is told as added, one that ceases to match as deleted."""
    seen = Recorder()
    informer = Informer(client, PODS, seen, label_selector="app=a")
    async with running(informer):
        await client.create(PODS, pod("p1", "n1", "b"))
        await client.create(PODS, pod("p2", "n1", "a"))
        await client.patch(PODS, "p1", {"metadata": {"labels": {"app": "a"}}}, "default")
        await client.patch(PODS, "p2", {"metadata": {"labels": {"app": "b"}}}, "default")
        await seen.until(lambda: len(seen.changes) == 3)
    assert seen.told() == [("added", "p2"), ("added", "p1"), ("deleted", "p2")]
    assert list(informer.store) == [("default", "p1")]


async def test_informer_goes_on_after_a_broken_connection(api: Api, client: HttpClient) -> None:
    """A cut watch continues from where it was: nothing is lost and nothing told twice."""
    seen = Recorder()
    informer = Informer(client, CONFIG_MAPS, seen, namespace="default")
    async with running(informer), await api.connect() as other:
        for number in range(6):
            await other.create(CONFIG_MAPS, config_map(f"c{number}"))
            api.proxy.cut()
            await asyncio.sleep(0)
        await seen.until(lambda: len(informer.store) == 6)
    assert seen.told() == [("added", f"c{number}") for number in range(6)]
    assert informer.status.lists == 1


async def test_informer_lists_again_after_compaction(api: Api, client: HttpClient) -> None:
    """When its revision is gone, what happened meanwhile comes out, deletions included."""
    for name in ("kept", "gone", "changed"):
        await client.create(CONFIG_MAPS, config_map(name))
    seen = Recorder()
    informer = Informer(client, CONFIG_MAPS, seen, namespace="default")
    async with running(informer):
        await seen.until(lambda: len(seen.changes) == 3)
        api.proxy.close_door()
        # The server is there, only not for the informer.
        async with await api.direct() as other:
            await other.delete(CONFIG_MAPS, "gone", "default")
            await other.patch(CONFIG_MAPS, "changed", {"data": {"a": "2"}}, "default")
            await other.create(CONFIG_MAPS, config_map("made"))
        await api.compact()
        api.proxy.open_door()
        await seen.until(lambda: len(seen.changes) == 6)
    assert seen.told()[3:] == [("deleted", "gone"), ("changed", "changed"), ("added", "made")]
    assert informer.status.lists == 2


async def test_informer_tells_a_reborn_object_as_two(api: Api, client: HttpClient) -> None:
    """Deleted and made again while nobody watched: a deletion and an addition, not a change."""
    await client.create(CONFIG_MAPS, config_map("one"))
    seen = Recorder()
    informer = Informer(client, CONFIG_MAPS, seen, namespace="default")
    async with running(informer):
        api.proxy.close_door()
        async with await api.direct() as other:
            await other.delete(CONFIG_MAPS, "one", "default")
            await other.create(CONFIG_MAPS, config_map("one"))
        await api.compact()
        api.proxy.open_door()
        await seen.until(lambda: len(seen.changes) == 3)
    assert seen.told() == [("added", "one"), ("deleted", "one"), ("added", "one")]


def unchecked_endpoints() -> dict[str, object]:
    """A definition of CiliumEndpoint that lets anything be stored."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v2",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
    }
    names = {"kind": "CiliumEndpoint", "plural": "ciliumendpoints", "singular": "ciliumendpoint"}
    return {
        "metadata": {"name": "ciliumendpoints.cilium.io"},
        "spec": {
            "group": "cilium.io",
            "names": names,
            "scope": "Namespaced",
            "versions": [version],
        },
    }


async def served(client: HttpClient, resource: Resource[Any]) -> None:
    """Wait until a new kind can be listed."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.list(resource)
                return
            except ApiError as error:
                if not error.not_found:
                    raise
            await asyncio.sleep(0.02)


async def test_bad_object_is_rejected_alone(client: HttpClient) -> None:
    """An object that does not decode is counted and named; its neighbours are told as ever."""
    await client.create(untyped(CRDS), unchecked_endpoints())
    await served(client, CILIUM_ENDPOINTS)
    raw = untyped(CILIUM_ENDPOINTS)
    good = {"metadata": {"name": "good", "namespace": "default"}, "status": {"id": 7}}
    await client.create(raw, good)
    bad = {"metadata": {"name": "bad", "namespace": "default"}, "status": {"id": "seven"}}
    await client.create(raw, bad)
    seen = Recorder()
    informer = Informer(client, CILIUM_ENDPOINTS, seen)
    async with running(informer):
        assert informer.rejected == 1
        assert "CiliumEndpoint default/bad does not decode" in informer.status.last_rejected
        await client.patch(raw, "good", {"status": {"id": "eight"}}, "default")
        await client.patch(raw, "bad", {"status": {"id": 8}}, "default")
        await seen.until(lambda: len(seen.changes) == 2)
        # The last good version of what has gone bad stays.
        status = informer.store["default", "good"].status
        assert status is not None
        assert status.id == 7
        assert list(informer.bad) == [("default", "good")]
    assert seen.told() == [("added", "good"), ("added", "bad")]


async def test_time_of_the_server(client: HttpClient) -> None:
    """To the second, by its own clock."""
    slack = timedelta(seconds=2)
    before = datetime.now(UTC)
    told = await client.server_time()
    assert told is not None
    assert before - slack <= told <= datetime.now(UTC) + slack
