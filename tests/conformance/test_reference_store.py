"""A store written as the reference writes it: a reader learns exactly what was said.

Real etcd; keys and values are built by ``tests.support.reference_writer``, not by our codecs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore.config import StoreConfig
from kvstore.config_directory import ConfigDirectory
from kvstore.reflections import Reflections
from kvstore.remotes import Remotes
from mesh.remote_slices import Preference
from model.cluster import Capabilities, ClusterId, ClusterName
from tests.conformance.test_mesh_store import Learnt, running
from tests.support.etcd import Etcd, plain_etcd, when_up
from tests.support.reference_writer import ReferenceWriter, Style
from wire.etcd import keys

pytestmark = pytest.mark.root

ALPHA, BETA = ClusterName("alpha"), ClusterName("beta")
PODS, NODES, IDENTITIES = 600, 3, 20  # more than two pages of 256
STYLES = {
    "1.18": Style(),
    "1.15, no canaries": Style(canaries=False, exports=None),
    "copied": Style(cached=True, exports=True),
    "511 clusters": Style(number=400, most=511),
    "1.22, prefixes as text": Style(prefixes_as_text=True),
    "capitals": Style(shout=True),
    "1.20, slices as well": Style(slices="services-and-endpointslices"),
    "1.20, slices only": Style(slices="endpointslices-only"),
}


def reads(said: Capabilities) -> tuple[str, ...]:
    records, slices = Preference.SLICES.reads(said)
    kinds = [keys.NODES, keys.IDENTITIES, keys.IP]
    return (*kinds, *[keys.SERVICES] * records, *[keys.ENDPOINT_SLICES] * slices)


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with plain_etcd() as found:
        yield found


def pod(n: int) -> str:
    return f"10.213.{n % NODES}.{n // NODES + 2}"


def node_ip(n: int) -> str:
    return f"172.31.9.{100 + n}"


async def fill(writer: ReferenceWriter) -> None:
    """Everything of a cluster, one put per key; what says nothing, or not of us, beside it."""
    style = writer.style
    await writer.begin()
    for n in range(IDENTITIES):
        await writer.identity(300 + n, app=f"a{n}")
    for n in range(NODES):
        await writer.node(f"n{n}", node_ip(n), f"10.213.{n}.0/24", "fd00:0:0:1::/64")
    for n in range(PODS):
        owner = style.identity(300 + n % IDENTITIES)
        await writer.ip(pod(n), node_ip(n % NODES), owner, f"pod-{n}", NamedPorts=None)
    await writer.ip("10.213.0.1", node_ip(0), 1, "host")
    await writer.ip("10.214.7.0/24", node_ip(1), 2, "prefix")
    await writer.put(writer.where("ip", "<nil>"), b"{}")
    if not style.slices.startswith("endpointslices"):
        await writer.service("web", [pod(0), pod(1)])
    if style.slices:
        await writer.slice("web-1", "web", {pod(0): (1, 1, 0), pod(2): (0, 1, 1)})
        await writer.slice("web-2", "web", {pod(3): (0, 0, 0)})
    # Of other clusters, and of types that nobody has asked for.
    await writer.put("cilium/state/nodes/v1/betamax/n0", b"nonsense")
    await writer.put("cilium/cache/ip/v1/betamax/10.9.9.9", b"nonsense")
    await writer.put("cilium/state/identities/v1/value/k8s:app=x;/172.31.9.1", b"1")
    await writer.put("cilium/state/noderegister/v1/vm", b"{}")
    await writer.put("cilium/.has-cluster-config", b"true")


def expected(style: Style) -> dict[tuple[str, str], Any]:
    """The tables that follow, by the published format."""
    rows: dict[tuple[str, str], Any] = {}
    for n in range(IDENTITIES):
        rows["identities", str(style.identity(300 + n))] = f"a{n}"
    for n in range(NODES):
        rows["nodes", f"n{n}"] = (node_ip(n), f"10.213.{n}.0/24", "fd00:0:0:1::/64")
    for n in range(PODS):
        owner = style.identity(300 + n % IDENTITIES)
        rows["ip", f"{pod(n)}/32"] = (node_ip(n % NODES), owner, "ns", f"pod-{n}")
    rows["ip", "10.213.0.1/32"] = (node_ip(0), 6, "ns", "host")  # another's host: a remote node
    rows["ip", "10.214.7.0/24"] = (node_ip(1), 2, "ns", "prefix")
    if not style.slices.startswith("endpointslices"):
        rows["services", "default/web"] = [pod(0), pod(1)]
    if style.slices:
        rows["endpointslices", "default/web-1"] = [(pod(0), "ACTIVE"), (pod(2), "TERMINATING")]
        rows["endpointslices", "default/web-2"] = [(pod(3), "QUARANTINED")]
    return rows


def learnt(sink: Learnt) -> dict[tuple[str, str], Any]:
    """What a sink was told, in the words of ``expected``."""
    rows: dict[tuple[str, str], Any] = {}
    for (kind, key), value in sink.rows.items():
        match kind:
            case "identities":
                told: Any = value.labels.get("app")
            case "nodes":
                told = (str(value.tunnel_endpoint()), *map(str, value.pod_cidrs))
            case "ip":
                told = (str(value.host_ip), value.identity, value.namespace, value.pod)
            case "services":
                told = [str(a) for a in value.backends]
            case _:
                told = [(str(e.address), e.state.name) for e in value.endpoints]
        rows[kind, str(key)] = told
    return rows


class Reader:
    """The reading side of ``alpha``."""

    def __init__(self, directory: Path, etcd: Etcd, most: int) -> None:
        directory.mkdir()
        self.directory, self.sink = directory, Learnt()
        (directory / BETA).write_text(f"endpoints:\n- {etcd.url}\n")
        self.remotes = Remotes(
            ConfigDirectory(directory, ALPHA), self.sink, ALPHA, ClusterId(1), most, wanted=reads
        )

    def ready(self) -> bool:
        return BETA in self.remotes.statuses and self.remotes.statuses[BETA].ready

    def message(self) -> str:
        return self.remotes.statuses[BETA].message if BETA in self.remotes.statuses else ""


@asynccontextmanager
async def written(etcd: Etcd, style: Style) -> AsyncIterator[ReferenceWriter]:
    store = await when_up(StoreConfig((etcd.url,)))
    writer = ReferenceWriter(store, style=style)
    try:
        await fill(writer)
        yield writer
    finally:
        await store.close()


def kinds_of(style: Style) -> tuple[str, ...]:
    records = () if style.slices.startswith("endpointslices") else ("services",)
    slices = ("endpointslices",) if style.slices else ()
    return ("nodes", "identities", "ip", *records, *slices)


@pytest.mark.parametrize("name", STYLES)
async def test_a_reader_learns_what_was_said(etcd: Etcd, tmp_path: Path, name: str) -> None:
    """Every table, exactly, nothing rejected; no type before its canary, where there are any."""
    style = STYLES[name]
    async with written(etcd, style) as writer:
        reader = Reader(tmp_path / "mesh", etcd, style.most)
        async with running(reader.remotes):
            first, *others = kinds_of(style)
            if style.canaries:
                await writer.canary(first)
                await reader.sink.until(lambda: len(reader.sink.rows) == NODES)
                await asyncio.sleep(0.3)
                assert {kind for kind, _ in reader.sink.rows} == {first}
                assert not reader.ready()
                await writer.canary(*others, "serviceexports")
            await reader.sink.until(reader.ready)
            assert learnt(reader.sink) == expected(style)
            status = reader.remotes.statuses[BETA]
            assert status.rejected == {}
            assert status.config is not None
            assert (status.config.id, status.config.capabilities.cached) == (
                style.number,
                style.cached,
            )
            await writer.ip("10.213.0.250", node_ip(0), style.identity(300), "late")
            await reader.sink.until(lambda: len(learnt(reader.sink)) == len(expected(style)) + 1)


@pytest.mark.parametrize(
    ("local", "said", "sentence"),
    [
        (255, {"most": 511}, "mismatched MaxConnectedClusters; local=255, remote=511"),
        (511, {"most": 255}, "mismatched MaxConnectedClusters; local=511, remote=255"),
        (255, {"most": 300}, "mismatched MaxConnectedClusters; local=255, remote=300"),
        (255, {"number": 256}, "cluster ID 256 is out of range: use 1 to 255"),
        (511, {"number": 512, "most": 511}, "cluster ID 512 is out of range: use 1 to 511"),
        (255, {"number": 0}, "cluster ID 0 means"),
        (255, {"number": 1}, "clusterID 1 is assigned to the local cluster"),
        (255, {"slices": "everything"}, "endpointSlicesExportMode 'everything' is none of"),
    ],
)
async def test_unequal_limits_are_refused_with_a_remedy(
    etcd: Etcd, tmp_path: Path, local: int, said: dict[str, Any], sentence: str
) -> None:
    """Nothing of such a cluster is read: its identities would mean something else here."""
    async with written(etcd, replace(Style(), **said)) as writer:
        await writer.canary("nodes", "identities", "ip", "services")
        reader = Reader(tmp_path / "mesh", etcd, local)
        async with running(reader.remotes):
            await reader.sink.until(lambda: sentence in reader.message())
            assert reader.sink.rows == {}


async def test_a_cluster_that_goes_over_to_slices(etcd: Etcd, tmp_path: Path) -> None:
    """The announcement changes while we read: records go only when all slices have been heard."""
    async with written(etcd, Style()) as writer:
        await writer.canary("nodes", "identities", "ip", "services")
        reader = Reader(tmp_path / "mesh", etcd, 255)
        async with running(reader.remotes):
            await reader.sink.until(reader.ready)
            writer.style = replace(writer.style, slices="endpointslices-only")
            await writer.begin()
            await reader.sink.until(lambda: not reader.ready())
            await asyncio.sleep(0.5)
            assert ("services", "default/web") in learnt(reader.sink)
            await writer.slice("web-1", "web", {pod(0): (1, 1, 0)})
            await writer.canary("endpointslices")
            await reader.sink.until(reader.ready)
            await reader.sink.until(lambda: ("services", "default/web") not in learnt(reader.sink))
            assert ("endpointslices", "default/web-1") in learnt(reader.sink)


@pytest.mark.parametrize("name", ["1.18", "1.20, slices as well", "1.20, slices only", "copied"])
async def test_a_copy_says_the_same(etcd: Etcd, tmp_path: Path, name: str) -> None:
    """Through a mirror of ours the reader learns the same tables; values go through as they are."""
    style = STYLES[name]
    with plain_etcd() as near:
        local = await when_up(StoreConfig((near.url,)))
        await ReferenceWriter(local, "alpha").beat()

        async def connect() -> Any:
            return await when_up(StoreConfig((near.url,)))

        directory = tmp_path / "copied"
        directory.mkdir()
        (directory / BETA).write_text(f"endpoints:\n- {etcd.url}\n")
        copies = Reflections(ConfigDirectory(directory, ALPHA), connect)
        async with written(etcd, style) as writer:
            await writer.canary(*kinds_of(style), "serviceexports")
            reader = Reader(tmp_path / "mesh", near, style.most)
            async with running(copies, reader.remotes):
                await reader.sink.until(reader.ready)
                assert learnt(reader.sink) == expected(style)
                config = reader.remotes.statuses[BETA].config
                assert config is not None
                assert config.capabilities.cached
                assert config.capabilities.slices.value == style.slices
                held = {r.key: r.value for r in (await local.range("cilium/cache/")).rows}
                sent = {r.key: r.value for r in (await writer.store.range("cilium/")).rows}
                for n in (0, PODS - 1):
                    assert (
                        held[f"cilium/cache/ip/v1/beta/{pod(n)}"]
                        == sent[writer.where("ip", pod(n))]
                    )
        await local.close()
