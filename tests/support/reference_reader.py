"""A reader that goes about as Cluster Mesh's own clients do, and believes no more than they do.

Order: heartbeat listed and watched, announcement, canaries listed and watched, then each type whose
canary stands. Lists are serializable, ascending, in pages of 256, all at the revision of the first;
watches begin one revision later and require a leader. Names are taken in their exact case only.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from kvstore import rpc_pb2 as pb
from kvstore.config import StoreConfig
from kvstore.port import prefix_end
from reconcile.tasks import TaskGroup
from tests.support.etcd_raw import message

PAGE_ROWS = 256
TYPES = ("nodes", "services", "ip", "identities", "serviceexports")
NODE_FIELDS = [
    "Name",
    "Cluster",
    "IPAddresses",
    "IPv4AllocCIDR",
    "IPv4SecondaryAllocCIDRs",
    "IPv6AllocCIDR",
    "IPv6SecondaryAllocCIDRs",
    "IPv4HealthIP",
    "IPv6HealthIP",
    "IPv4IngressIP",
    "IPv6IngressIP",
    "ClusterID",
    "Source",
    "EncryptionKey",
    "Labels",
    "Annotations",
    "NodeIdentity",
    "WireguardPubKey",
    "BootID",
]


@dataclass
class ReferenceReader:
    """What one connection to ``cluster``'s store learnt."""

    config: StoreConfig
    cluster: str
    calls: list[str] = field(default_factory=list)
    announced: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=lambda: {t: {} for t in TYPES})
    synced: set[str] = field(default_factory=set)
    beats: int = 0
    refused: list[str] = field(default_factory=list)
    pages: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    etcd_id: int = 0

    def __post_init__(self) -> None:
        (target,) = self.config.targets()
        files = (self.config.ca_file, self.config.key_file, self.config.cert_file)
        credentials = grpc.ssl_channel_credentials(*(Path(f).read_bytes() for f in files))
        self._channel = grpc.aio.secure_channel(target.authority, credentials)

    @property
    def cached(self) -> bool:
        return bool(self.announced["capabilities"].get("cached"))

    async def until(self, claim: Callable[[], bool], what: str, timeout_s: float = 40) -> None:
        async with asyncio.timeout(timeout_s):
            while not claim():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.changed.wait()
        assert claim(), what

    async def run(self) -> None:
        async with TaskGroup() as tasks:
            revision = (await self._list("cilium/.heartbeat"))[0]
            tasks.create_task(self._watch("cilium/.heartbeat", revision, self._on_beat))
            self.calls.append("connected")
            await self._announcement()
            capabilities = self.announced["capabilities"]
            assert capabilities["syncedCanaries"] is True
            root = f"cilium/synced/{self.cluster}/"
            revision, found = await self._list(root)

            def canary(key: str, value: bytes | None) -> None:
                state = "cache" if self.cached else "state"
                for kind in TYPES:
                    name = f"{root}cilium/{state}/{kind}/v1"
                    if value is not None and key == name and kind not in self.synced:
                        self.synced.add(kind)
                        tasks.create_task(self._follow(kind))

            for key, value in found:
                canary(key, value)
            await self._watch(root, revision, canary)

    async def try_a_session(self) -> str:
        """What an older client does on any store: a lease, and a lock under it."""
        try:
            request = message([(1, 900)])
            reply = await self._call("Lease/LeaseGrant", request, pb.LeaseGrantResponse)
            lock = message([(1, b"cilium/.initlock/1/2"), (2, b""), (3, reply.ID)])
            await self._call("KV/Put", lock, pb.PutResponse)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def _announcement(self) -> None:
        key = f"cilium/cluster-config/{self.cluster}".encode()
        reply = await self._call("KV/Range", message([(1, key)]), pb.RangeResponse)
        assert reply.kvs, "no announcement"
        self.announced = json.loads(reply.kvs[0].value)

    async def _follow(self, kind: str) -> None:
        root = f"cilium/{'cache' if self.cached else 'state'}/{kind}/v1/"
        inner = {"ip": "default/", "identities": "id/"}
        if self.cached:
            root += f"{self.cluster}/{'id/' if kind == 'identities' else ''}"
        else:
            root += inner.get(kind, f"{self.cluster}/")

        def take(key: str, value: bytes | None) -> None:
            name = key.removeprefix(root)
            if value is None:
                self.rows[kind].pop(name, None)
                return
            try:
                self.rows[kind][name] = getattr(self, f"_{kind}")(name, value)
            except (AssertionError, KeyError, ValueError, TypeError) as error:
                self.refused.append(f"{key}: {type(error).__name__} {error}")

        revision, rows = await self._list(root)
        for key, value in rows:
            take(key, value)
        self.calls.append(f"listed {kind}")
        await self._watch(root, revision, take)

    def _nodes(self, name: str, value: bytes) -> Any:
        node = json.loads(value)
        assert list(node) == NODE_FIELDS, list(node)
        assert node["Name"] == name
        assert (node["Cluster"], node["ClusterID"]) == (self.cluster, self.announced["id"])
        for cidr in (node["IPv4AllocCIDR"], *(node["IPv4SecondaryAllocCIDRs"] or ())):
            if cidr is not None:
                mask = base64.b64decode(cidr["Mask"], validate=True)
                ip_network((cidr["IP"], bin(int.from_bytes(mask)).count("1")))
        for address in node["IPAddresses"] or ():
            ip_address(address["IP"])
        return node

    def _identities(self, name: str, value: bytes) -> str:
        self._in_range(int(name))
        text = value.decode()
        assert text.endswith(";")
        labels = dict(part.partition("=")[::2] for part in text[:-1].split(";"))
        assert labels["k8s:io.cilium.k8s.policy.cluster"] == self.cluster
        assert list(labels) == sorted(labels, key=lambda label: label.partition(":")[2])
        return text

    def _ip(self, name: str, value: bytes) -> Any:
        entry = json.loads(value)
        assert entry["Mask"] is None
        assert entry["IP"] == name
        ip_address(entry["HostIP"])
        assert 0 <= entry["Key"] <= 255
        assert entry["Metadata"] == ""
        if entry["ID"] >= 256:
            self._in_range(entry["ID"])
        return entry

    def _services(self, name: str, value: bytes) -> Any:
        service = json.loads(value)
        assert f"{service['namespace']}/{service['name']}" == name
        assert (service["cluster"], service["clusterID"]) == (self.cluster, self.announced["id"])
        for part in ("frontends", "backends"):
            for address, ports in service[part].items():
                ip_address(address)
                for port in ports.values():
                    assert port["Protocol"] in ("NONE", "ANY", "TCP", "UDP", "SCTP")
                    assert 0 <= port["Port"] <= 65535
        assert isinstance(service["hostnames"], dict)
        return service

    def _serviceexports(self, name: str, value: bytes) -> Any:
        return json.loads(value)

    def _in_range(self, number: int) -> None:
        shift = 16 if self.announced["capabilities"]["maxConnectedClusters"] == 255 else 15
        assert number >> shift == self.announced["id"], number

    def _on_beat(self, _: str, value: bytes | None) -> None:
        self.beats += value is not None

    async def _list(self, prefix: str) -> tuple[int, list[tuple[str, bytes]]]:
        key, end, revision = prefix.encode(), prefix_end(prefix), 0
        rows: list[tuple[str, bytes]] = []
        while True:
            fields = [(1, key), (2, end), (3, PAGE_ROWS), (4, revision), (5, 1), (6, 0), (7, 1)]
            reply = await self._call("KV/Range", message(fields), pb.RangeResponse)
            self.pages += 1
            revision = revision or reply.header.revision
            rows += [(row.key.decode(), row.value) for row in reply.kvs]
            if not reply.more:
                return revision, rows
            key = reply.kvs[-1].key + b"\0"

    async def _watch(
        self, prefix: str, revision: int, take: Callable[[str, bytes | None], None]
    ) -> None:
        self.calls.append(f"watch {prefix}")
        call: Any = self._channel.stream_stream("/etcdserverpb.Watch/Watch")(
            metadata=(("hasleader", "true"),)
        )
        create = [(1, prefix.encode()), (2, prefix_end(prefix)), (3, revision + 1)]
        await call.write(message([(1, create)]))
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                reply = pb.WatchResponse.FromString(data)
                self._same_etcd(reply)
                assert not reply.canceled, reply.cancel_reason
                for event in reply.events:
                    take(event.kv.key.decode(), None if event.type else event.kv.value)
                self.changed.set()
        finally:
            call.cancel()

    async def _call(self, method: str, request: bytes, kind: Any) -> Any:
        self.calls.append(method)
        unary: Any = self._channel.unary_unary(f"/etcdserverpb.{method}")
        reply = kind.FromString(await unary(request, timeout=30))
        self._same_etcd(reply)
        self.changed.set()
        return reply

    def _same_etcd(self, reply: Any) -> None:
        assert reply.header.cluster_id, "a reply without an etcd header"
        assert self.etcd_id in (0, reply.header.cluster_id), "another etcd answers"
        self.etcd_id = reply.header.cluster_id

    async def close(self) -> None:
        await self._channel.close()


@asynccontextmanager
async def reading(config: StoreConfig, cluster: str) -> AsyncIterator[ReferenceReader]:
    """A reader that runs, and whose errors are the test's."""
    reader = ReferenceReader(config, cluster)
    try:
        async with TaskGroup() as tasks:
            task = tasks.create_task(reader.run())
            yield reader
            task.cancel()
    finally:
        await reader.close()


def kinds(reader: ReferenceReader) -> Sequence[str]:
    """Types that it has listed."""
    return [c.removeprefix("listed ") for c in reader.calls if c.startswith("listed ")]
