"""Remote clusters as a directory says, against real stores with TLS and users."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from certs.issue import KeyPair, create_ca
from kvstore.config import StoreConfig
from kvstore.config_directory import ConfigDirectory
from kvstore.publisher import Publisher
from kvstore.remotes import Remotes
from model.address import parse_address, parse_prefix
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName, identity_range
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress
from tests.conformance.test_mesh_store import Learnt, running
from tests.support.etcd import Etcd, free_port, mesh_etcd, when_up
from wire.etcd import cluster_config_v1, ip_v1, keys

pytestmark = pytest.mark.root

C1, ONE = ClusterName("c1"), ClusterId(1)
C2, C3 = ClusterName("c2"), ClusterName("c3")


class Told(Learnt):
    """A sink that keeps the clusters apart."""

    def on_changes(self, cluster, resource, changes):
        super().on_changes(cluster, resource, [((cluster, k), v) for k, v in changes])

    def on_removed(self, cluster):
        self.rows = {k: v for k, v in self.rows.items() if k[1][0] != cluster}
        self.removed += 1
        self.changed.set()

    def of(self, cluster: str) -> set[str]:
        return {str(key) for _, (owner, key) in self.rows if owner == cluster}


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return create_ca(datetime.now(UTC))


@pytest.fixture
def etcd(ca: KeyPair) -> Iterator[Etcd]:
    with mesh_etcd(C2, ca) as found:
        yield found


@pytest.fixture
def another(ca: KeyPair) -> Iterator[Etcd]:
    with mesh_etcd(C2, ca) as found:
        yield found


@pytest.fixture
def stores(ca: KeyPair) -> Iterator[dict[str, Etcd]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(mesh_etcd(name, ca)) for name in (C2, C3)}


def configure(directory: Path, name: str, etcd: Etcd, foreign: KeyPair | None = None) -> None:
    """The file that ``connect`` writes: by mesh name, its addresses beside it."""
    user = etcd.user("remote", foreign)
    host = f"{name}.mesh.cilium.io"
    temporary = directory.parent / f"{name}.new"
    temporary.write_text(
        f"endpoints:\n- https://{host}:{etcd.port}\n"
        f"trusted-ca-file: {user.ca_file}\ncert-file: {user.cert_file}\n"
        f"key-file: {user.key_file}\n"
        f"cilium-host-aliases:\n- hostname: {host}\n  ips: [127.0.0.1]\n"
    )
    temporary.rename(directory / name)


def announce(number: int, most: int = 255) -> ClusterConfig:
    return ClusterConfig(ClusterId(number), Capabilities(True, False, most, False))


def writer(etcd: Etcd, name: ClusterName, number: int, *addresses: str) -> Publisher:
    """A cluster that publishes pod addresses and nothing else."""

    async def admin():
        return await etcd.store(f"admin-{name}")

    found = Publisher(admin, name, announce(number))
    identity = NumericIdentity(identity_range(ClusterId(number)).first + 256)
    for text in addresses:
        ip = parse_address(text)
        found.put({keys.ip(ip): ip_v1.encode(ip, EndpointAddress(None, identity))})
    for resource in keys.RESOURCES:
        found.complete(resource)
    return found


class Mesh:
    """The reading side of c1."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.sink = directory, Told()
        self.remotes = Remotes(ConfigDirectory(directory, C1), self.sink, C1, ONE)

    def ready(self, *names: ClusterName) -> Callable[[], bool]:
        return lambda: all(
            n in self.remotes.statuses and self.remotes.statuses[n].ready for n in names
        )

    def says(self, name: ClusterName, text: str) -> Callable[[], bool]:
        return lambda: name in self.remotes.statuses and text in self.remotes.statuses[name].message


@asynccontextmanager
async def reading(directory: Path, *writers: Publisher) -> AsyncIterator[Mesh]:
    mesh = Mesh(directory)
    async with running(mesh.remotes, *writers):
        yield mesh


async def test_clusters_come_and_go_with_their_files(
    stores: dict[str, Etcd], tmp_path: Path
) -> None:
    """A file joins a cluster by its mesh name, its removal withdraws all of it and nothing else."""
    writers = [writer(stores[C2], C2, 2, "10.2.0.1"), writer(stores[C3], C3, 3, "10.3.0.1")]
    async with reading(tmp_path / "mesh", *writers) as mesh:
        configure(mesh.directory, C2, stores[C2])
        await mesh.sink.until(mesh.ready(C2))
        configure(mesh.directory, C3, stores[C3])
        await mesh.sink.until(mesh.ready(C2, C3))
        assert mesh.sink.of(C2) == {"10.2.0.1/32"}
        assert mesh.sink.of(C3) == {"10.3.0.1/32"}
        (mesh.directory / C2).unlink()
        await mesh.sink.until(lambda: C2 not in mesh.remotes.statuses and not mesh.sink.of(C2))
        assert mesh.sink.of(C3) == {"10.3.0.1/32"}
        assert mesh.remotes.statuses[C3].ready
        assert mesh.remotes.statuses[C3].failures == 0


async def test_a_number_belongs_to_who_came_first(stores: dict[str, Etcd], tmp_path: Path) -> None:
    """The second cluster with a number is told so and kept out, until the first has left."""
    writers = [writer(stores[C2], C2, 2, "10.2.0.1"), writer(stores[C3], C3, 2, "10.3.0.1")]
    async with reading(tmp_path / "mesh", *writers) as mesh:
        configure(mesh.directory, C2, stores[C2])
        await mesh.sink.until(mesh.ready(C2))
        configure(mesh.directory, C3, stores[C3])
        await mesh.sink.until(mesh.says(C3, "clusterID 2 is already used by c2: give one"))
        assert mesh.sink.of(C3) == set()
        assert mesh.remotes.statuses[C2].ready
        (mesh.directory / C2).unlink()
        await mesh.sink.until(mesh.ready(C3))
        assert mesh.sink.of(C3) == {"10.3.0.1/32"}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (announce(1), "clusterID 1 is assigned to the local cluster"),
        (announce(0), "cluster ID 0 means"),
        (announce(300), "cluster ID 300 is out of range: use 1 to 255"),
        (announce(2, 511), "mismatched MaxConnectedClusters; local=255, remote=511"),
    ],
)
async def test_an_unusable_announcement_is_said_and_mended(
    etcd: Etcd, tmp_path: Path, config: ClusterConfig, says: str
) -> None:
    """The sentence stands in the status; a good announcement is taken without a restart."""
    good = writer(etcd, C2, 2, "10.2.0.1")
    store = await etcd.store("admin-c2")
    await store.put(keys.cluster_config(C2), cluster_config_v1.encode(config))
    async with reading(tmp_path / "mesh") as mesh:
        configure(mesh.directory, C2, etcd)
        await mesh.sink.until(mesh.says(C2, says))
        assert not mesh.remotes.statuses[C2].ready
        assert not mesh.sink.rows
        async with running(good):
            await mesh.sink.until(mesh.ready(C2))
            assert mesh.sink.of(C2) == {"10.2.0.1/32"}
    await store.close()


async def test_a_new_number_means_everything_anew(etcd: Etcd, tmp_path: Path) -> None:
    """Announced while we are connected: the old number's rows go before the new one's come."""
    async with reading(tmp_path / "mesh") as mesh:
        configure(mesh.directory, C2, etcd)
        async with running(writer(etcd, C2, 2, "10.2.0.1", "10.2.0.2")):
            await mesh.sink.until(mesh.ready(C2))
        async with running(writer(etcd, C2, 4, "10.2.0.1")):
            await mesh.sink.until(lambda: mesh.sink.removed == 1)
            await mesh.sink.until(lambda: mesh.ready(C2)() and mesh.sink.of(C2) == {"10.2.0.1/32"})
            config = mesh.remotes.statuses[C2].config
            assert config is not None
            assert config.id == 4


async def test_a_changed_file_reconnects_and_loses_nothing(
    etcd: Etcd, another: Etcd, tmp_path: Path
) -> None:
    """The cluster's store moves to another port: learnt rows stay throughout."""
    writers = [writer(e, C2, 2, "10.2.0.1") for e in (etcd, another)]
    async with reading(tmp_path / "mesh", *writers) as mesh:
        configure(mesh.directory, C2, etcd)
        await mesh.sink.until(mesh.ready(C2))
        first = mesh.remotes.statuses[C2].endpoint
        configure(mesh.directory, C2, another)
        await mesh.sink.until(
            lambda: (
                mesh.remotes.statuses[C2].endpoint not in ("", first)
                and mesh.remotes.statuses[C2].ready
            )
        )
        assert mesh.sink.of(C2) == {"10.2.0.1/32"}
        assert mesh.sink.removed == 0


async def test_a_foreign_certificate_is_said_and_mended(etcd: Etcd, tmp_path: Path) -> None:
    """A client certificate of another authority gives one sentence; a new file heals it."""
    async with reading(tmp_path / "mesh", writer(etcd, C2, 2, "10.2.0.1")) as mesh:
        configure(mesh.directory, C2, etcd, create_ca(datetime.now(UTC)))
        await mesh.sink.until(mesh.says(C2, "client certificate"), 30)
        # The same file names, another content: certificates are read at each connect.
        configure(mesh.directory, C2, etcd)
        await mesh.sink.until(mesh.ready(C2), 30)
        assert parse_prefix("10.2.0.1/32") in {k for _, (_, k) in mesh.sink.rows}


async def test_a_broken_file_harms_nobody(stores: dict[str, Etcd], tmp_path: Path) -> None:
    """It is named; its own session and the others go on."""
    writers = [writer(stores[C2], C2, 2, "10.2.0.1"), writer(stores[C3], C3, 3, "10.3.0.1")]
    async with reading(tmp_path / "mesh", *writers) as mesh:
        configure(mesh.directory, C2, stores[C2])
        configure(mesh.directory, C3, stores[C3])
        await mesh.sink.until(mesh.ready(C2, C3))
        (mesh.directory / C2).write_text("endpoints: [")
        await mesh.sink.until(lambda: bool(mesh.remotes.problems))
        assert "mesh/c2: not a store's configuration" in mesh.remotes.problems[0]
        assert mesh.ready(C2, C3)()
        assert mesh.sink.removed == 0


def mounted(directory: Path, content: str, version: int) -> None:
    """As the kubelet mounts a Secret: a visible link through ``..data`` into a new directory."""
    data = directory / f"..{version}"
    data.mkdir()
    (data / C2).write_text(content)
    link = directory / "..data_tmp"
    link.symlink_to(data.name)
    link.rename(directory / "..data")
    if not (directory / C2).is_symlink():
        (directory / C2).symlink_to(f"..data/{C2}")


async def test_a_mounted_secret_moves_the_store_and_sets_the_time(
    etcd: Etcd, another: Etcd, tmp_path: Path
) -> None:
    """The link is swapped: another address (by alias) is connected to, a time for stale data is
    taken over without connecting again, and nothing is lost on the way."""
    writers = [writer(e, C2, 2, "10.2.0.1") for e in (etcd, another)]
    configure(tmp_path, "x", etcd)
    texts = []
    for store in (etcd, another):
        configure(tmp_path, "x", store)
        texts.append((tmp_path / "x").read_text())
    async with reading(tmp_path / "mesh", *writers) as mesh:
        mounted(mesh.directory, texts[0], 1)
        await mesh.sink.until(mesh.ready(C2))
        status = mesh.remotes.statuses[C2]
        assert status.endpoint.endswith(f":{etcd.port}")
        mounted(mesh.directory, texts[0] + "isthmus-cache-ttl: 7m\n", 2)
        await mesh.sink.until(lambda: status.age.revoke_after_s == 420)
        assert status.ready
        mounted(mesh.directory, texts[1] + "isthmus-cache-ttl: 7m\n", 3)
        await mesh.sink.until(lambda: status.ready and status.endpoint.endswith(f":{another.port}"))
        assert mesh.sink.of(C2) == {"10.2.0.1/32"}
        assert mesh.sink.removed == 0
        mounted(mesh.directory, "", 4)  # empty is a mistake
        await mesh.sink.until(lambda: bool(mesh.remotes.problems))
        assert status.ready
        (mesh.directory / C2).unlink()
        await mesh.sink.until(lambda: mesh.sink.removed == 1)
        assert not mesh.sink.of(C2)


RESOLVE = """
import asyncio, pathlib, sys
from kvstore.config import StoreConfig
from kvstore.etcd import connect
async def main():
    hosts = pathlib.Path("/etc/hosts")
    for address in sys.argv[2:]:
        hosts.write_text(f"{address} moving.example\\n")
        store = await connect(StoreConfig((f"http://moving.example:{sys.argv[1]}",)))
        row = await store.get("where")
        print(row.value.decode(), flush=True)
        await store.close()
asyncio.run(main())
"""


@contextmanager
def etcd_at(address: str, port: int) -> Iterator[str]:
    """A plain one on an address of its own."""
    url = f"http://{address}:{port}"
    with TemporaryDirectory(prefix="ist-t-dns-") as directory:
        argv = ["etcd", "--data-dir", directory, "--listen-client-urls", url]
        argv += ["--advertise-client-urls", url]
        argv += ["--listen-peer-urls", f"http://127.0.0.1:{free_port()}"]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield url
        finally:
            process.kill()
            process.wait()


async def test_a_name_is_resolved_at_each_connection() -> None:
    """The remote's name leads to another address: the next connection goes there."""
    port, addresses = free_port(), ("127.77.0.1", "127.77.0.2")
    with ExitStack() as stack:
        for address in addresses:
            url = stack.enter_context(etcd_at(address, port))
            store = await when_up(StoreConfig((url,)))
            await store.put("where", address.encode())
            await store.close()
        # A hosts file of its own, in a mount namespace of its own.
        script = 'f=$(mktemp); mount --bind "$f" /etc/hosts && rm "$f"; exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", RESOLVE]
        argv += [str(port), *addresses]
        done = await asyncio.to_thread(
            subprocess.run, argv, capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == list(addresses), done.stderr
