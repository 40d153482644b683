"""The account of the join service may do exactly what redeeming a token takes.

The service runs in a thread of this process, so that what it asks the API server for is seen.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certs.profiles import SERVER_SECRET
from clustermesh_apiserver import join
from tests.support import kind_apiserver, rbac
from tests.support.etcd import free_port
from tests.support.mesh_pair import Pair

THREAD = "join"
SPACE = "kube-system"
VALUES = {
    "port": 32379,
    "join_port": 32381,
    "local_port": 32383,
    "service_type": "NodePort",
    "cluster_name": "cluster-a",
    "cluster_id": 1,
    "max_connected": 255,
    "image": "x",
    "trust": "x",
    "peer_port": 32380,
    "etcd_port": 32382,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("roles")
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    with (
        kind_apiserver.cluster(directory / "a") as a,
        kind_apiserver.cluster(directory / "b") as b,
    ):
        made = Pair(directory, a=a, b=b)
        made.fresh()
        yield made


@contextmanager
def serving(settings: join.Settings) -> Iterator[None]:
    """The service, in a loop and a thread of its own."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(join.run(settings))

    def work() -> None:
        loop.run_until_complete(asyncio.wait((task,)))
        loop.run_until_complete(asyncio.sleep(0.1))  # TLS connections close in later turns
        loop.close()

    thread = threading.Thread(target=work, name=THREAD)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def test_roles_are_what_joining_takes(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call is covered; every right on Secrets is used; nothing else of them is allowed."""
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_bytes(pair.secret("a", SERVER_SECRET)[name])
    port = free_port()
    kubeconfig = str(pair.servers["a"].kubeconfig)
    place = f"127.0.0.1:{port}"
    settings = join.Settings(SPACE, "127.0.0.1", port, tmp_path, kubeconfig)
    with rbac.recorded(monkeypatch, THREAD) as calls, serving(settings):
        grant = ("clustermesh", "grant", "--context", "a", "--join-endpoint", place)
        token = pair.good(*grant).strip()
        kind_apiserver.until("the service listens", lambda: listens(port))
        assert "Joined" in pair.good("clustermesh", "join", "--context", "b", token)
    items = rbac.objects("clustermesh", namespace=SPACE, **VALUES)
    assert not rbac.refused("clustermesh-apiserver", calls, items)
    used = {(c.verb, c.name) for c in calls}
    assert used == {
        *((verb, "clustermesh-join-grants") for verb in ("get", "list", "watch", "update")),
        ("get", "cilium-ca"),
        ("get", "cilium-clustermesh"),
        ("update", "cilium-clustermesh"),
    }
    beyond = [
        rbac.Call(verb, "", "secrets", SPACE, name)
        for verb in ("get", "list", "create", "update", "patch", "delete")
        for name in ("", "cilium-ca", "clustermesh-join-grants", "cilium-clustermesh", "other")
        if (verb, name) not in used
    ]
    assert set(rbac.refused("clustermesh-apiserver", set(beyond), items)) == set(beyond)


def listens(port: int) -> bool:
    """Somebody does."""

    async def ask() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    return asyncio.run(ask())
