"""Two real stores and a mirror between them: what tests of copies begin with."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvstore import etcd as client
from kvstore.config_directory import ConfigDirectory
from kvstore.etcd import EtcdStore
from kvstore.publisher import Publisher
from kvstore.reflection import Reflection
from kvstore.reflections import Reflections
from kvstore.remote import Remote
from model.cluster import ClusterName
from tests.conformance.test_mesh_store import Learnt, publisher, running
from tests.conformance.test_mesh_store import complete as say_all
from tests.conformance.test_remotes import configure
from tests.support.etcd import Etcd, mesh_etcd
from tests.support.tcp_proxy import TcpProxy
from wire.etcd import keys

C1, C2 = ClusterName("c1"), ClusterName("c2")


class Copies:
    """c1's KVStoreMesh, and what its store holds."""

    def __init__(
        self, directory: Path, near: Etcd, ttl_s: int = 900, grace_s: float = 0, **more: float
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.near = directory, near
        self.admin = near.user("admin-c1")
        self.reflections = Reflections(
            ConfigDirectory(directory, C1),
            lambda: client.connect(self.admin),
            ttl_s,
            grace_s,
            **more,
        )

    @property
    def of_c2(self) -> Reflection:
        return self.reflections.all[C2]

    def ready(self) -> bool:
        return C2 in self.reflections.all and self.of_c2.source.status.ready

    async def held(self, prefix: str = "cilium/") -> dict[str, bytes]:
        store = await self.near.store("admin-c1")
        try:
            return {row.key: row.value for row in (await store.range(prefix)).rows}
        finally:
            await store.close()


class Pair:
    """c2's store, ours, and what runs between them."""

    def __init__(self, far: Etcd, near: Etcd, directory: Path) -> None:
        self.far, self.near, self.directory = far, near, directory

    def said(self, content: dict[str, bytes | None]) -> Publisher:
        """c2's publisher, with this to say; it has yet to run."""
        writer = publisher(self.far)
        say_all(writer, content)
        return writer

    def configure(self, door: TcpProxy | None = None) -> None:
        """Tell c1 of c2, through a door if there is one."""
        configure(self.directory, C2, replace(self.far, port=door.port) if door else self.far)

    @asynccontextmanager
    async def copying(self, *others: Any, **more: Any) -> AsyncIterator[Copies]:
        """A mirror that is yet to hear of c2, unless an earlier one has."""
        copies = Copies(self.directory, self.near, **more)
        async with running(copies.reflections, *others):
            yield copies

    @asynccontextmanager
    async def copied(
        self,
        content: dict[str, bytes | None],
        *others: Any,
        door: TcpProxy | None = None,
        **more: Any,
    ) -> AsyncIterator[Copies]:
        """A mirror that is ready, and whose copy is exactly this content of c2."""
        async with self.copying(*others, **more) as copies:
            self.configure(door)
            await until(copies.ready)
            await until(same(copies, content))
            yield copies

    def door(self) -> AbstractAsyncContextManager[TcpProxy]:
        """Between the mirror and c2: it can be shut."""
        return TcpProxy("127.0.0.1", self.far.port).serve()

    def agent(self, sink: Learnt, connect: Any = None) -> Remote:
        """An agent of c1 that reads the copy of c2."""

        async def local() -> EtcdStore:
            return await self.near.store("local-c1")

        return Remote(C2, connect or local, sink, lambda name, config: None)

    async def put_near(self, content: dict[str, bytes]) -> None:
        """Write into our own store."""
        await put(self.near, "admin-c1", content)

    async def beats(self) -> None:
        """Our own store has a heartbeat, which agents insist on."""
        await self.put_near({keys.HEARTBEAT: b"now"})


async def until(holds: Any, timeout_s: float = 40) -> None:
    """Look again until it holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


def cache_key(key: str) -> str:
    """Where a row of c2's state lies in a copy, spelled out from the published key space."""
    for kind, own in (
        ("nodes", "c2/"),
        ("identities", "id/"),
        ("ip", "default/"),
        ("services", "c2/"),
    ):
        head = f"cilium/state/{kind}/v1/{own}"
        if key.startswith(head):
            tail = "c2/id/" if kind == "identities" else "c2/"
            return f"cilium/cache/{kind}/v1/{tail}{key.removeprefix(head)}"
    raise AssertionError(key)


def same(copies: Copies, wanted: dict[str, bytes | None]) -> Any:
    """The copy holds exactly these rows of c2, value for value."""

    async def look() -> bool:
        return await copies.held(keys.CACHE_PREFIX) == {cache_key(k): v for k, v in wanted.items()}

    return look


async def put(etcd: Etcd, user: str, content: dict[str, bytes]) -> None:
    store = await etcd.store(user)
    for key, value in content.items():
        await store.put(key, value)
    await store.close()


@contextmanager
def pair_of_stores(directory: Path) -> Iterator[Pair]:
    """Of c2 and c1, with TLS and users; ``directory`` is where c1 is told of c2."""
    with mesh_etcd(C2) as far, mesh_etcd(C1) as near:
        yield Pair(far, near, directory)
