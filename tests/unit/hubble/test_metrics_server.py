"""The page of a node's metrics: what is on it, how it is asked for, what changes it."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import Profile
from hubble.config import HubbleConfig
from hubble.metrics import server
from hubble.metrics.options import parse_text
from hubble.metrics.server import Metrics
from hubble.node import NodeSource
from hubble.ring import SOURCE_KERNEL
from reconcile.tasks import TaskGroup
from tests.support.etcd import free_port
from tests.support.hubble_records import drop, some_names, tcp, trace
from tests.support.metrics_page import Scraped, parse
from wire.names import EndpointLine

NOW = 1 << 62
METRICS = "drop flow:sourceContext=pod tcp"


@pytest.fixture
def config() -> HubbleConfig:
    return HubbleConfig(
        cluster_name="west",
        k8s_node_name="node-1",
        hubble_metrics_server=("127.0.0.1", free_port()),
        hubble_metrics=parse_text(METRICS),
    )


@asynccontextmanager
async def serving(
    config: HubbleConfig, gone_s: float = 60
) -> AsyncIterator[tuple[NodeSource, Metrics]]:
    source = NodeSource(config)
    source.names.__dict__.update(some_names().__dict__)
    metrics = Metrics(config, source, gone_s=gone_s)
    async with TaskGroup() as tasks:
        task = tasks.create_task(metrics.run())
        yield source, metrics
        task.cancel()


async def ask(
    config: HubbleConfig, tls: ssl.SSLContext | None = None, **headers: str
) -> tuple[str, str]:
    """Type and text of the page, once it is served."""
    assert config.hubble_metrics_server is not None
    scheme, port = "https" if tls else "http", config.hubble_metrics_server[1]
    url = f"{scheme}://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url, headers=headers, ssl=tls or True) as answer:
                    assert answer.status == 200
                    return answer.headers["Content-Type"], await answer.text()
            except aiohttp.ClientConnectorError as error:
                if isinstance(
                    error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError
                ):
                    raise
                await asyncio.sleep(0.02)


async def until(claim: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await claim():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def scrape(config: HubbleConfig) -> dict[str, Scraped]:
    return parse((await ask(config))[1])


async def test_what_is_seen_is_on_the_page(config: HubbleConfig) -> None:
    """Flows, losses of each kind, and how often the page was made; each record counts once."""
    async with serving(config) as (source, _):
        source.ring.extend([(NOW, trace(tcp())), (NOW, drop(tcp())), (NOW, trace(tcp(flags="A")))])
        source.intake.lost[SOURCE_KERNEL] += 7
        source.ring.overtaken += 3

        async def counted() -> bool:
            return (await scrape(config))["hubble_flows_processed_total"].total() == 3

        await until(counted)
        page = await scrape(config)
        assert page["hubble_drop_total"].total(reason="POLICY_DENIED", protocol="TCP") == 1
        assert page["hubble_tcp_flags_total"].total(flag="SYN") == 1
        pod = {"source": "default/client-6d4f-x"}
        assert page["hubble_flows_processed_total"].total(**pod) == 3
        lost = page["hubble_lost_events_total"]
        assert lost.total(source="perf_event_ring_buffer") == 7
        assert lost.total(source="hubble_ring_buffer") == 3
        assert lost.total(source="observer_events_queue") == lost.total(source="metrics_queue") == 0
        assert page["hubble_metrics_http_handler_requests_total"].total(code="200") >= 1


async def test_a_burst_is_counted_to_the_last_record(config: HubbleConfig) -> None:
    """More at once than the ring keeps, and than a feed keeps: what is not counted is told."""
    async with serving(replace(config, hubble_event_buffer_capacity=63)) as (source, metrics):
        source.ring.extend([(NOW, trace(tcp()))] * 5000)
        source.ring.extend([(NOW, trace(tcp()))] * 70_000)

        async def counted() -> bool:
            return (await scrape(config))["hubble_flows_processed_total"].total() == 5000

        await until(counted)
        assert (await scrape(config))["hubble_lost_events_total"].total() == 70_000
        assert metrics.engine.decoded == 1


async def test_series_end_with_their_pod_unless_it_comes_back(config: HubbleConfig) -> None:
    """Those of pods that stay go on."""

    def pod(name: str, number: int, address: str) -> EndpointLine:
        return EndpointLine(
            id=number, addresses=(address,), namespace="default", pod=name, identity=9
        )

    async with serving(config, gone_s=1) as (source, _):
        ends = {"one": (31, "10.1.0.31"), "two": (32, "10.1.0.32"), "three": (33, "10.1.0.33")}
        for name, (number, address) in ends.items():
            source.names.apply(pod(name, number, address), 1)
            source.ring.extend([(NOW, trace(tcp(src=address)))])

        async def pods() -> set[str]:
            page = (await scrape(config))["hubble_flows_processed_total"]
            return {labels["source"] for labels, _ in page.samples}

        async def all_three() -> bool:
            return await pods() == {f"default/{name}" for name in ends}

        await until(all_three)
        for name in ("one", "two"):
            source.names.apply(EndpointLine(id=ends[name][0], gone=True), 2)
        source.names.apply(pod("two", 42, "10.1.0.42"), 3)

        async def one_less() -> bool:
            return await pods() == {"default/two", "default/three"}

        await until(one_less)
        await asyncio.sleep(1.2)
        assert await one_less()


async def test_open_metrics_only_when_allowed_and_asked_for(config: HubbleConfig) -> None:
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.1"}
    async with serving(config):
        assert (await ask(config, **accept))[0].startswith("text/plain")
    config = replace(config, enable_hubble_open_metrics=True)
    async with serving(config):
        kind, text = await ask(config, **accept)
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        assert (await ask(config))[0].startswith("text/plain")


async def test_the_file_is_read_again(
    config: HubbleConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics come and go, filters change and counts stay; garbage changes nothing."""
    monkeypatch.setattr(server, "FILE_INTERVAL_S", 0.0)
    monkeypatch.setattr(server, "_UPKEEP_S", 0.02)
    path = tmp_path / "metrics.yaml"
    config = replace(config, hubble_metrics=(), hubble_dynamic_metrics_config_path=path)
    async with serving(config) as (source, _):

        async def write(text: str, op: str) -> None:
            """As a ConfigMap's files change: by another in its place."""
            before = (await operations()).total(op=op)
            new = tmp_path / "new"
            new.write_text(text)
            os.replace(new, path)

            async def taken() -> bool:
                return (await operations()).total(op=op) > before

            await until(taken)

        async def operations() -> Scraped:
            return (await scrape(config))["hubble_dynamic_metrics_reconfigurations_total"]

        async def flows(number: int) -> None:
            async def there() -> bool:
                page = (await scrape(config))["hubble_flows_processed_total"]
                return page.total() == number

            await until(there)

        await write("metrics: [{name: flow}]", "update")
        source.ring.extend([(NOW, trace(tcp()))])
        await flows(1)
        only = '{name: flow, includeFilters: [{source_ip: ["10.9.9.9"]}]}'
        await write(f"metrics: [{only}, {{name: tcp}}]", "update")
        source.ring.extend([(NOW, trace(tcp()))])

        async def tcp_counts() -> bool:
            return (await scrape(config))["hubble_tcp_flags_total"].total() == 1

        await until(tcp_counts)
        await flows(1)
        await write("metrics: [{name: weather}]", "failure")
        source.ring.extend([(NOW, trace(tcp(src="10.9.9.9")))])
        await flows(2)
        await write("metrics: []", "update")
        assert "hubble_flows_processed_total" not in await scrape(config)


async def test_with_tls_only_for_those_with_a_certificate(
    config: HubbleConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a renewed certificate is shown without a restart."""
    monkeypatch.setattr(server, "_UPKEEP_S", 0.02)
    now = datetime.now(UTC)
    ca = create_ca(now)

    def put(name: str, pair: KeyPair) -> None:
        (tmp_path / name).write_bytes(pair.certificate)
        (tmp_path / f"{name}.key").write_bytes(pair.key)

    put("server", issue(ca, Profile("one", ("127.0.0.1",), server=True), now))
    put("client", issue(ca, Profile("c", client=True), now))
    (tmp_path / "ca").write_bytes(ca.certificate)
    config = replace(
        config,
        hubble_metrics_server_enable_tls=True,
        hubble_metrics_server_tls_cert_file=tmp_path / "server",
        hubble_metrics_server_tls_key_file=tmp_path / "server.key",
        hubble_metrics_server_tls_client_ca_files=tmp_path / "ca",
    )

    def client(*, named: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca"))
        context.check_hostname = False
        if named:
            context.load_cert_chain(tmp_path / "client", tmp_path / "client.key")
        return context

    async with serving(config):
        assert "hubble_lost_events_total" in (await ask(config, client(named=True)))[1]
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await ask(config, client(named=False))
        put("server", issue(ca, Profile("two", ("127.0.0.1",), server=True), now))

        async def renewed() -> bool:
            assert config.hubble_metrics_server is not None
            _, writer = await asyncio.open_connection(
                *config.hubble_metrics_server, ssl=client(named=True)
            )
            shown = writer.get_extra_info("peercert")
            writer.close()
            return ("commonName", "two") in {pair for part in shown["subject"] for pair in part}

        await until(renewed)
