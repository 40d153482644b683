"""The operator against an API server: definitions, rounds, settings."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from cluster_operator import config, peer_crd
from cluster_operator.collector import Collector
from cluster_operator.crds import definitions
from cluster_operator.definition import SCHEMA_VERSION, VERSION_LABEL
from cluster_operator.install import install, install_all
from kube.client import HttpClient
from kube.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    CRDS,
    NODES,
    PODS,
    untyped,
)
from reconcile.tasks import TaskGroup
from tests.support.kube import Api, fake_api
from wire.k8s.cilium_identity import GC_MARK

START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with fake_api(tmp_path) as running_api:
        yield running_api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[HttpClient]:
    async with await api.connect() as connected:
        yield connected


async def establish(client: HttpClient) -> None:
    """What a real server does with definitions that it accepts."""
    for crd in await client.list(CRDS):
        if not crd.established:
            conditions = [{"type": "Established", "status": "True"}]
            await client.patch_status(CRDS, crd.metadata.name, {"conditions": conditions})


async def test_definitions_are_installed_and_awaited(client: HttpClient) -> None:
    """It ends when all are served, not when all are stored."""
    async with asyncio.timeout(10), TaskGroup() as group:
        task = group.create_task(install_all(client, 10))
        while len(await client.list(CRDS)) < len(definitions()):
            assert not task.done()
        assert not task.done()
        await establish(client)
    assert {c.metadata.name for c in await client.list(CRDS)} == {
        "ciliumidentities.cilium.io",
        "ciliumnodes.cilium.io",
        "ciliumendpoints.cilium.io",
        "ciliumnetworkpolicies.cilium.io",
        "ciliumclusterwidenetworkpolicies.cilium.io",
        "ciliumcidrgroups.cilium.io",
    }


async def test_unserved_definitions_are_named(client: HttpClient) -> None:
    """A server that does not serve them is not waited for without end."""
    with pytest.raises(TimeoutError, match=r"not served after 0 s: .*ciliumnodes\.cilium\.io"):
        await install_all(client, 0.2)


@pytest.mark.parametrize(("version", "kept"), [("1.0.0", False), ("", False), ("99.0.0", True)])
async def test_older_definitions_are_replaced(client: HttpClient, version: str, kept: bool) -> None:
    """A newer schema than ours, from a newer operator, stays."""
    body = next(iter(definitions()))
    name = body["metadata"]["name"]
    old = {
        "metadata": {"name": name, "labels": {VERSION_LABEL: version}},
        "spec": {"versions": [], "scope": "Cluster"},
    }
    await client.create(untyped(CRDS), old)
    await install(client, body)
    stored = await client.get(untyped(CRDS), name)
    assert stored["spec"]["versions"] == ([] if kept else body["spec"]["versions"])
    assert stored["metadata"]["labels"][VERSION_LABEL] == (version if kept else SCHEMA_VERSION)


async def test_identity_is_collected_after_its_grace(client: HttpClient) -> None:
    """Unused: marked, kept for the grace time, then gone; the used one stays unmarked."""
    clock = Clock()
    collector = Collector(client, timedelta(minutes=30), clock)
    for name in ("300", "301"):
        await client.create(
            CILIUM_IDENTITIES, {"metadata": {"name": name}, "security-labels": {"k8s:a": name}}
        )
    endpoint = {
        "metadata": {"name": "p", "namespace": "d"},
        "status": {"identity": {"id": 301}},
    }
    await client.create(CILIUM_ENDPOINTS, endpoint)
    await collector.identities()
    marked = {i.metadata.name: i.metadata.annotations for i in await client.list(CILIUM_IDENTITIES)}
    assert marked == {"300": {GC_MARK: "2026-11-21T03:00:00Z"}, "301": None}
    clock.now = START + timedelta(minutes=29)
    await collector.identities()
    assert len(await client.list(CILIUM_IDENTITIES)) == 2
    clock.now = START + timedelta(minutes=31)
    await collector.identities()
    assert [i.metadata.name for i in await client.list(CILIUM_IDENTITIES)] == ["301"]
    assert collector.deleted == {"CiliumIdentity": 1}


async def test_unreadable_endpoint_keeps_all_identities(client: HttpClient) -> None:
    """The identity of an endpoint that cannot be read may be any: nothing is deleted."""
    clock = Clock()
    collector = Collector(client, timedelta(0), clock)
    await client.create(
        CILIUM_IDENTITIES, {"metadata": {"name": "300"}, "security-labels": {"k8s:a": "b"}}
    )
    bad = {"metadata": {"name": "p", "namespace": "d"}, "status": {"identity": {"id": "x"}}}
    await client.create(untyped(CILIUM_ENDPOINTS), bad)
    for _ in range(3):
        with pytest.raises(ValueError, match="ciliumendpoints"):
            await collector.identities()
    assert len(await client.list(CILIUM_IDENTITIES)) == 1


async def test_endpoints_and_nodes_are_collected(client: HttpClient) -> None:
    """An endpoint without pod goes at once, a CiliumNode without node in the second round."""
    collector = Collector(client, timedelta(minutes=30))
    for name in ("stays", "goes"):
        meta = {"name": name, "namespace": "d"}
        await client.create(CILIUM_ENDPOINTS, {"metadata": meta, "status": {}})
        await client.create(CILIUM_NODES, {"metadata": {"name": name}, "spec": {}})
    await client.create(PODS, {"metadata": {"name": "stays", "namespace": "d"}})
    await client.create(NODES, {"metadata": {"name": "stays"}})
    await collector.endpoints()
    await collector.nodes()
    assert [e.metadata.name for e in await client.list(CILIUM_ENDPOINTS)] == ["stays"]
    assert len(await client.list(CILIUM_NODES)) == 2
    await collector.nodes()
    assert [n.metadata.name for n in await client.list(CILIUM_NODES)] == ["stays"]


def test_settings_come_from_flag_then_environment_then_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearer source wins, key by key."""
    for key, value in (
        ("identity-gc-interval", "1m"),
        ("nodes-gc-interval", "2m\n"),
        ("cilium-endpoint-gc-interval", "3m"),
        ("..data", "not a setting"),
    ):
        (tmp_path / key).write_text(value)
    monkeypatch.setenv("CILIUM_IDENTITY_GC_INTERVAL", "10s")
    monkeypatch.setenv("CILIUM_NODES_GC_INTERVAL", "20s")
    settings = config.load({"identity-gc-interval": "1s"}, str(tmp_path))
    assert settings.identity_gc_interval_s == 1
    assert settings.nodes_gc_interval_s == 20
    assert settings.cilium_endpoint_gc_interval_s == 180


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("nodes-gc-interval", "soon", 'nodes-gc-interval: duration "soon" is not valid: write it'),
        ("skip-crd-creation", "1", 'skip-crd-creation: "1" is not valid: use true or false'),
    ],
)
def test_bad_setting_is_named(key: str, value: str, said: str) -> None:
    """Key, value and remedy."""
    with pytest.raises(ValueError, match=re.escape(said)):
        config.load({key: value}, "")


async def test_process_from_start_to_stop(api: Api, client: HttpClient) -> None:
    """The real process: healthy once the definitions are served, exit code 0 at the end."""
    address = "127.0.0.1:0"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cluster_operator",
        "--kubeconfig",
        api.kubeconfig,
        f"--operator-api-serve-addr={address}",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            url = (await line_with(process.stderr, "event=listening")).rsplit("=", 1)[1].strip()
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://{url}/healthz") as answer:
                    assert answer.status == 503
                wanted = len(definitions()) + len(peer_crd.definitions())
                while len(await client.list(CRDS)) < wanted:
                    pass
                await establish(client)
                await line_with(process.stderr, "event=ready")
                async with http.get(f"http://{url}/healthz") as answer:
                    assert answer.status == 200
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_with(stream: asyncio.StreamReader, text: str) -> str:
    """The next line that holds a text."""
    while line := (await stream.readline()).decode():
        if text in line:
            return line
    raise AssertionError(f"the process ended without saying {text}")
