"""``etcdinit`` with a real etcd."""

import asyncio
import sys
from pathlib import Path

import pytest

from clustermesh_apiserver.etcdinit import empty_directory
from kvstore.port import PermissionDeniedError, UnavailableError
from tests.support.lab_api import ETCD
from tests.support.mesh_store import ROOT, MeshStore, mesh_store


async def run(*arguments: str) -> tuple[int | None, list[str]]:
    """Exit code, and what it said in its own name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "clustermesh_apiserver",
        "etcdinit",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    _, err = await process.communicate()
    lines = err.decode().splitlines()
    return process.returncode, [i for i in lines if i.startswith("clustermesh-apiserver: ")]


async def test_users_of_a_prepared_store(tmp_path: Path) -> None:
    """Admin writes; remote reads the state, local the cache, and neither the other's."""
    state, cache = "cilium/state/nodes/v1/c1/n", "cilium/cache/nodes/v1/c2/n"
    async with mesh_store(tmp_path / "mesh", "c1") as store:
        users = {u: await store.connect(u) for u in ("admin-c1", "remote", "local-c1")}
        try:
            for key in (state, cache):
                await users["admin-c1"].put(key, b"{}")
            for user, readable, hidden in (("remote", state, cache), ("local-c1", cache, state)):
                assert await users[user].get(readable) is not None
                with pytest.raises(PermissionDeniedError):
                    await users[user].get(hidden)
                with pytest.raises(PermissionDeniedError):
                    await users[user].put(readable, b"")
        finally:
            for connected in users.values():
                await connected.close()


async def test_prepared_again_it_is_empty_and_another_etcd(tmp_path: Path) -> None:
    """What was in the directory is gone; clients see a new etcd."""
    directory = tmp_path / "mesh"
    ids = []
    async with mesh_store(directory, "c1") as store:
        for _ in range(2):
            admin = await store.connect("admin-c1")
            assert (await admin.range("cilium/")).rows == ()
            await admin.put("cilium/state/x", b"1")
            ids.append((await admin.status()).cluster_id)
            await admin.close()
            await store.stop()
            await store.prepare()
            await store.start()
    assert ids[0] != ids[1]


async def test_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    """A foreign certificate with the right name opens nothing."""
    foreign = MeshStore(tmp_path / "foreign", "c1")
    async with mesh_store(tmp_path / "mesh", "c1") as store:
        foreign.port = store.port
        with pytest.raises(UnavailableError):
            await foreign.connect("remote")


def test_directory_is_emptied_but_kept(tmp_path: Path) -> None:
    """It is a mount: the directory stays, all in it goes, links are not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    inside = tmp_path / "data"
    (inside / "member" / "wal").mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    before = inside.stat().st_ino
    empty_directory(str(inside))
    assert list(inside.iterdir()) == []
    assert inside.stat().st_ino == before
    assert (outside / "kept").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster-name=C1"], 'cluster name "C1" is not valid'),
        (["--cluster-name=c1", "--timeout=soon"], 'timeout: duration "soon" is not valid'),
        (["--cluster-name=c1", "--etcd-binary=no-etcd"], "no program no-etcd: install etcd-server"),
        (["--cluster-name=c1", "--etcd-binary=false"], "etcd ended with code 1 before it was set"),
        (["--cluster-name=c1", f"--etcd-binary={ETCD}", "--timeout=1ms"], "not prepared within"),
    ],
)
async def test_failures_are_one_line_and_exit_1(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    """What went wrong and what to do."""
    code, lines = await run(f"--etcd-data-dir={tmp_path / 'data'}", *arguments)
    assert code == 1
    assert len(lines) == 1
    assert said in lines[0]
