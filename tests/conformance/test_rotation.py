"""A new authority on a running mesh of real etcds with TLS; Secrets are directories here."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs import check, rotation
from certs.issue import create_ca, issue
from certs.profiles import ADMIN_SECRET, CA_SECRET, REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from certs.rotation import Loaded, Member
from certs.store import CertificateStore, Place
from kvstore.config import StoreConfig
from kvstore.config_directory import ConfigDirectory
from kvstore.etcd import connect
from kvstore.port import UnavailableError
from kvstore.publisher import Publisher
from kvstore.remotes import Remotes
from model.cluster import ClusterName
from tests.conformance.test_mesh_store import running
from tests.conformance.test_remotes import C1, C2, ONE, Told, announce
from tests.support.etcd import Etcd, prepare, when_up
from wire.etcd import keys

pytestmark = pytest.mark.root


class Directories:
    """``certs.store.Secrets`` in a directory: one more of it per Secret."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def read(self, name: str) -> Mapping[str, bytes]:
        return {f.name: f.read_bytes() for f in sorted((self.root / name).glob("*"))}

    async def write(self, name: str, data: Mapping[str, bytes | None]) -> None:
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        for key, value in data.items():
            if value is None:
                (directory / key).unlink(missing_ok=True)
            else:
                (directory / f".{key}").write_bytes(value)
                (directory / f".{key}").rename(directory / key)


class Cluster:
    """A store, its certificates, and what the running etcd was started with."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.secrets = name, Directories(root / name)
        self.place = Place(self.secrets, mesh_profiles(name))
        self.etcd = Etcd(root / f"{name}-etcd")
        self.etcd.directory.mkdir()
        self.loaded = Loaded(frozenset(), frozenset())
        self.restarts = 0

    async def found(self) -> None:
        now = datetime.now(UTC) - timedelta(days=1)
        ca = create_ca(now)
        await self.secrets.write(CA_SECRET, {"ca.crt": ca.certificate, "ca.key": ca.key})
        for secret, profile in self.place.profiles.items():
            pair = issue(ca, profile, now)
            await self.secrets.write(secret, pair.secret_data(ca.certificate))

    async def trust(self, other: "Cluster") -> None:
        for secret in (SERVER_SECRET, REMOTE_SECRET):
            own = (await self.secrets.read(secret))["ca.crt"]
            theirs = (await other.secrets.read(CA_SECRET))["ca.crt"]
            await self.secrets.write(secret, {"ca.crt": check.bundle(own, theirs)})

    def files(self, secret: str) -> tuple[str, str, str]:
        directory = self.secrets.root / secret
        return tuple(str(directory / n) for n in ("ca.crt", "tls.crt", "tls.key"))  # type: ignore[return-value]

    async def start(self) -> None:
        """etcd reads its certificate at each handshake, and its authorities now."""
        self.etcd.kill()
        ca, certificate, key = self.files(SERVER_SECRET)
        url = f"https://127.0.0.1:{self.etcd.port}"
        more = ["--listen-client-urls", url, "--advertise-client-urls", url, "--client-cert-auth"]
        more += ["--trusted-ca-file", ca, "--cert-file", certificate, "--key-file", key]
        self.etcd.start(*more, plain=True)
        data = await self.secrets.read(SERVER_SECRET)
        known = check.authorities(data["ca.crt"])
        self.loaded = Loaded(frozenset(known), frozenset({check.issuer(data["tls.crt"], known)}))
        # Until it serves, readers may not have heard yet that it was away.
        await (await when_up(self.user(ADMIN_SECRET, url))).close()

    def user(self, secret: str, url: str) -> StoreConfig:
        ca, certificate, key = self.files(secret)
        return StoreConfig((url,), ca, certificate, key)

    def observed(self, member: Member) -> Member:
        """Files reach their readers at once here."""
        issuers = self.loaded.issuers | {member.secrets[SERVER_SECRET].issuer}
        remote = member.secrets[REMOTE_SECRET]
        clients = Loaded(remote.trust, frozenset({remote.issuer}))
        return replace(member, store=replace(self.loaded, issuers=issuers), clients=clients)


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[dict[str, Cluster]]:
    with ExitStack() as stack:
        found = {name: Cluster(name, tmp_path) for name in (C1, C2)}
        for one in found.values():
            stack.callback(one.etcd.kill)
            prepare(one.etcd, one.name)
        yield found


def configure(directory: Path, reader: Cluster, served: Cluster) -> None:
    ca, certificate, key = reader.files(REMOTE_SECRET)
    host = f"{served.name}.mesh.cilium.io"
    (directory / served.name).write_text(
        f"endpoints:\n- https://{host}:{served.etcd.port}\ntrusted-ca-file: {ca}\n"
        f"cert-file: {certificate}\nkey-file: {key}\n"
        f"cilium-host-aliases:\n- hostname: {host}\n  ips: [127.0.0.1]\n"
    )


async def rotate(store: CertificateStore, clusters: dict[str, Cluster], ready) -> list[str]:  # type: ignore[no-untyped-def]
    done: list[str] = []
    async with asyncio.timeout(150):
        while True:
            members = [clusters[m.name].observed(m) for m in await store.read()]
            plan = rotation.plan(members, datetime.now(UTC))
            if plan.done:
                return done
            assert plan.steps, plan.waiting
            for step in plan.steps:
                if isinstance(step, rotation.Restart):
                    await clusters[step.member].start()
                    clusters[step.member].restarts += 1
                    await ready()
                else:
                    await store.carry_out(step, datetime.now(UTC))
                done.append(type(step).__name__)


async def test_sessions_outlive_a_new_authority(
    clusters: dict[str, Cluster], tmp_path: Path
) -> None:
    """Readers of both sides are ready after every restart of a store, forget nothing, and at the
    end the old authority's client is refused while its successor is let in."""
    for one in clusters.values():
        await one.found()
    for one, other in ((C1, C2), (C2, C1)):
        await clusters[one].trust(clusters[other])
    for one in clusters.values():
        await one.start()
    c1, c2 = clusters[C1], clusters[C2]

    def publisher(one: Cluster, number: int) -> Publisher:
        def admin():  # type: ignore[no-untyped-def]
            return when_up(one.user(ADMIN_SECRET, f"https://127.0.0.1:{one.etcd.port}"))

        found = Publisher(admin, ClusterName(one.name), announce(number))
        for resource in keys.RESOURCES:
            found.complete(resource)
        return found

    directory = tmp_path / "remotes"
    directory.mkdir()
    configure(directory, c1, c2)
    sink = Told()
    remotes = Remotes(ConfigDirectory(directory, C1), sink, C1, ONE)

    async def ready() -> None:
        async with asyncio.timeout(60):
            while True:
                status = remotes.statuses.get(C2)
                if status is not None and status.ready:
                    return
                await asyncio.sleep(0.02)

    store = CertificateStore({C1: c1.place, C2: c2.place})
    async with running(remotes, publisher(c1, 1), publisher(c2, 2)):
        await ready()
        (tmp_path / "old").mkdir()
        old = await c1.secrets.read(REMOTE_SECRET)
        for name, data in old.items():
            (tmp_path / "old" / name).write_bytes(data)
        (before, *_) = await store.read()
        await store.prepare(before, datetime.now(UTC))
        steps = await rotate(store, clusters, ready)
        await ready()
        assert {"Trust", "Restart", "Promote", "Issue", "Forget"} == set(steps)
        assert c1.restarts <= 3
        assert c2.restarts == 2
        assert sink.removed == 0
        url = f"https://127.0.0.1:{c2.etcd.port}"
        await (await connect(c1.user(REMOTE_SECRET, url))).close()
        trust = c1.files(REMOTE_SECRET)[0]
        kept = [str(tmp_path / "old" / n) for n in ("tls.crt", "tls.key")]
        with pytest.raises(UnavailableError, match="client certificate"):
            await connect(StoreConfig((url,), trust, *kept))
        after, _ = await store.read()
        assert after.authority != before.authority
        assert not after.former
        assert "former-ca.crt" not in await c1.secrets.read(CA_SECRET)


async def test_new_certificates_do_not_break_a_session(
    clusters: dict[str, Cluster], tmp_path: Path
) -> None:
    """The session stands while files change under it; a new one uses the new files."""
    for one in clusters.values():
        await one.found()
    for one, other in ((C1, C2), (C2, C1)):
        await clusters[one].trust(clusters[other])
    c1, c2 = clusters[C1], clusters[C2]
    await c2.start()
    directory = tmp_path / "remotes"
    directory.mkdir()
    configure(directory, c1, c2)
    watched = ConfigDirectory(directory, C1)
    before = watched.read().clusters[C2]
    store = CertificateStore({C1: c1.place, C2: c2.place})
    url = f"https://127.0.0.1:{c2.etcd.port}"
    session = await when_up(c1.user(REMOTE_SECRET, url))
    await store.read()
    now = datetime.now(UTC)
    for step in (rotation.Issue(C1, REMOTE_SECRET, ""), rotation.Issue(C2, SERVER_SECRET, "")):
        await store.carry_out(step, now)
    after = watched.read().clusters[C2]
    assert after.digest == before.digest
    assert after.files != before.files
    await session.range(keys.STATE_PREFIX)
    await (await connect(c1.user(REMOTE_SECRET, url))).close()
    await session.range(keys.STATE_PREFIX)
    await session.close()
