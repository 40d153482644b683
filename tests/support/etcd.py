"""A real etcd per test: plain or with TLS and users, on loopback, in a directory of its own."""

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import Profile, mesh_profiles
from kvstore.bootstrap import bootstrap
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore, connect
from kvstore.port import UnavailableError

START_TIMEOUT_S = 60.0  # an emulated machine reads the program for half of it


_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody has, and no connection is given before it is listened on."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)  # below those that connections are given
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@dataclass
class Etcd:
    """A process that can be killed and started again, with its data or without."""

    directory: Path
    port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    ca: KeyPair | None = None
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.port}"

    def start(self, *more: str, plain: bool = False) -> None:
        scheme = "http" if plain else self.url.split(":")[0]
        url = f"{scheme}://127.0.0.1:{self.port}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        argv = ["etcd", "--name", "t", "--data-dir", str(self.directory / "data")]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        argv += ["--initial-cluster", f"t={peer}", "--unsafe-no-fsync", *more]
        if self.ca and not plain:
            argv += ["--client-cert-auth", "--trusted-ca-file", str(self.directory / "ca.crt")]
            argv += ["--cert-file", str(self.directory / "server.crt")]
            argv += ["--key-file", str(self.directory / "server.key")]
        log = (self.directory / "etcd.log").open("ab")
        self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        log.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def write(self, name: str, pair: KeyPair) -> None:
        (self.directory / f"{name}.crt").write_bytes(pair.certificate)
        (self.directory / f"{name}.key").write_bytes(pair.key)

    def user(self, common_name: str, ca: KeyPair | None = None, age_days: int = 0) -> StoreConfig:
        """A client whose certificate, valid for a day, says ``common_name``."""
        if not self.ca:
            return StoreConfig((self.url,))
        profile = Profile(common_name, client=True, validity_days=1)
        self.write(
            common_name, issue(ca or self.ca, profile, datetime.now(UTC) - timedelta(days=age_days))
        )
        files = (str(self.directory / f"{common_name}.{end}") for end in ("crt", "key"))
        return StoreConfig((self.url,), str(self.directory / "ca.crt"), *files)

    async def store(self, user: str = "root") -> EtcdStore:
        """A connection, as soon as the store answers."""
        return await when_up(self.user(user))


async def when_up(config: StoreConfig) -> EtcdStore:
    """Connect, waiting for a store that is starting."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                return await connect(config)
            except UnavailableError:
                await asyncio.sleep(0.05)


@contextmanager
def plain_etcd() -> Iterator[Etcd]:
    """Without TLS and users."""
    with tempfile.TemporaryDirectory(prefix="ist-t-etcd-") as name:
        etcd = Etcd(Path(name))
        etcd.start()
        try:
            yield etcd
        finally:
            etcd.kill()


@contextmanager
def mesh_etcd(cluster: str, ca: KeyPair | None = None) -> Iterator[Etcd]:
    """As a mesh store runs: TLS, client certificates, users, authentication on."""
    with tempfile.TemporaryDirectory(prefix="ist-t-etcd-") as name:
        now = datetime.now(UTC)
        etcd = Etcd(Path(name), ca=ca or create_ca(now))
        assert etcd.ca is not None
        (etcd.directory / "ca.crt").write_bytes(etcd.ca.certificate)
        profiles = mesh_profiles(cluster)
        etcd.write("server", issue(etcd.ca, profiles["clustermesh-apiserver-server-cert"], now))
        try:
            prepare(etcd, cluster)
            etcd.start()
            yield etcd
        finally:
            etcd.kill()


def prepare(etcd: Etcd, cluster: str) -> None:
    """Users and roles in an empty data directory, as the init container makes them."""
    etcd.start(plain=True)

    async def fill() -> None:
        store = await when_up(StoreConfig((f"http://127.0.0.1:{etcd.port}",)))
        await bootstrap(store, cluster)
        await store.close()

    asyncio.run(fill())
    etcd.kill()
