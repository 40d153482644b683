"""The etcd of a mesh member as it is deployed: prepared by ``etcdinit``, served over TLS."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml

from certs.issue import create_ca, issue
from certs.profiles import mesh_profiles
from kvstore import etcd
from kvstore.config import load_store_config
from tests.support.etcd import when_up
from tests.support.lab_api import ETCD, free_port, stop, wait_for_port

ROOT = Path(__file__).parents[2]


class MeshStore:
    """One cluster's store; users are ``admin-<cluster>``, ``local-<cluster>`` and ``remote``."""

    def __init__(self, directory: Path, cluster: str) -> None:
        self.cluster = cluster
        self.port, self._peer = free_port(), free_port()
        self._directory = directory
        self._data = directory / "data"
        self._process: asyncio.subprocess.Process | None = None
        directory.mkdir(parents=True, exist_ok=True)
        ca = create_ca(datetime.now(UTC))
        (directory / "ca.crt").write_bytes(ca.certificate)
        for profile in mesh_profiles(cluster).values():
            pair = issue(ca, profile, datetime.now(UTC))
            name = profile.common_name
            (directory / f"{name}.crt").write_bytes(pair.certificate)
            (directory / f"{name}.key").write_bytes(pair.key)

    def config(self, user: str) -> str:
        """The file with which a user reaches the store."""
        path = self._directory / f"{user}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "endpoints": [f"https://127.0.0.1:{self.port}"],
                    "trusted-ca-file": str(self._directory / "ca.crt"),
                    "cert-file": str(self._directory / f"{user}.crt"),
                    "key-file": str(self._directory / f"{user}.key"),
                }
            )
        )
        return str(path)

    async def connect(self, user: str) -> etcd.EtcdStore:
        return await etcd.connect(load_store_config(Path(self.config(user))))

    async def prepare(self) -> None:
        """Empty it and make users and roles, as the init container does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clustermesh_apiserver",
            "etcdinit",
            f"--etcd-data-dir={self._data}",
            f"--cluster-name={self.cluster}",
            f"--etcd-binary={ETCD}",
            cwd=ROOT,
            env={**os.environ, "ETCD_UNSAFE_NO_FSYNC": "true"},
        )
        assert await process.wait() == 0

    async def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer}"
        url = f"https://127.0.0.1:{self.port}"
        server = self._directory / "clustermesh-apiserver.cilium.io"
        self._process = await asyncio.create_subprocess_exec(
            ETCD,
            f"--data-dir={self._data}",
            "--name=clustermesh-apiserver",
            "--client-cert-auth",
            f"--trusted-ca-file={self._directory / 'ca.crt'}",
            f"--cert-file={server}.crt",
            f"--key-file={server}.key",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
            "--logger=zap",
            "--log-level=error",
        )
        await wait_for_port(self.port, self._process)
        # It listens before it serves.
        admin = load_store_config(Path(self.config(f"admin-{self.cluster}")))
        await (await when_up(admin)).close()

    async def stop(self) -> None:
        if self._process is not None:
            await stop(self._process, kill=True)

    def wipe(self) -> None:
        shutil.rmtree(self._data)


@asynccontextmanager
async def mesh_store(directory: Path, cluster: str) -> AsyncIterator[MeshStore]:
    """A prepared and running store."""
    store = MeshStore(directory, cluster)
    await store.prepare()
    await store.start()
    try:
        yield store
    finally:
        await store.stop()
