"""API servers to test against: the fake, and whatever else passes the same suite."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from kube.client import HttpClient
from kube.config import connect
from kube.informer import Informer
from reconcile.tasks import TaskGroup
from tests.support.fake_kube import FakeKube
from tests.support.tcp_proxy import TcpProxy


@dataclass
class Api:
    """A running API server behind a proxy that can be cut."""

    kubeconfig: str
    direct_kubeconfig: str  # past the proxy
    proxy: TcpProxy
    compact: Callable[[], Awaitable[None]]
    fake: FakeKube | None = None

    async def connect(self) -> HttpClient:
        return await connect(self.kubeconfig)

    async def direct(self) -> HttpClient:
        return await connect(self.direct_kubeconfig)


def write_kubeconfig(path: Path, server: str, user: dict[str, str], cluster: dict[str, str]) -> str:
    """A kubeconfig with one context."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "test", "user": user}],
            }
        )
    )
    return str(path)


@asynccontextmanager
async def fake_api(directory: Path) -> AsyncIterator[Api]:
    """The fake."""
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeKube().serve())
        port = urlsplit(fake.url).port
        assert port
        proxy = await stack.enter_async_context(TcpProxy("127.0.0.1", port).serve())
        user = {"token": "secret-token"}
        server = f"http://127.0.0.1:{proxy.port}"
        through = write_kubeconfig(directory / "kubeconfig", server, user, {})
        direct = write_kubeconfig(directory / "direct", fake.url, user, {})
        yield Api(through, direct, proxy, fake.compact, fake)


async def until(claim: Callable[[], bool], timeout_s: float = 30) -> None:
    """Look at something that tells no changes until a claim about it holds."""
    async with asyncio.timeout(timeout_s):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Recorder:
    """Takes an informer's changes and lets a test wait for a state of it."""

    def __init__(self) -> None:
        self.changes: list[tuple[object, object]] = []
        self._news = asyncio.Condition()

    async def __call__(self, old: object, new: object) -> None:
        async with self._news:
            self.changes.append((old, new))
            self._news.notify_all()

    async def until(self, claim: Callable[[], bool], timeout_s: float = 30) -> None:
        """Wait until a claim holds; it is looked at after every change."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(claim)

    def told(self) -> list[tuple[str, str]]:
        """Changes as (what, object name)."""
        return [_told(old, new) for old, new in self.changes]


def _told(old: object, new: object) -> tuple[str, str]:
    what = "added" if old is None else "deleted" if new is None else "changed"
    return what, (new or old).metadata.name  # type: ignore[union-attr]


@asynccontextmanager
async def running(*informers: Informer) -> AsyncIterator[None]:  # type: ignore[type-arg]
    """Informers that run until the block ends; entered when all are synced."""
    async with TaskGroup() as group:
        tasks = [group.create_task(informer.run()) for informer in informers]
        try:
            async with asyncio.timeout(30):
                for informer in informers:
                    await informer.synced.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()
