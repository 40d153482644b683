"""The processes of a rehearsal: etcds, API server, agent, each with its log. Adapter."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import Profile, mesh_profiles
from kind.simulate.enclosure import CHECKOUT, ROOT
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore, connect
from kvstore.port import UnavailableError

START_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
TXN_OPS = 1024  # of the etcds here, so that filling is quick
_QUOTA = 8 << 30


class SimulationError(Exception):
    """The rehearsal itself cannot go on; the text says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    rss_mb: float
    peak_mb: float


class Process:
    """A child with its log."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.log = ROOT / f"{name}.log"
        if shutil.which(command[0]) is None:
            raise SimulationError(f"there is no program {command[0]}: install it")
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log)

    def check(self) -> None:
        """Raises ``SimulationError`` with the log's end when it has ended."""
        code = self._child.poll()
        if code is not None:
            raise SimulationError(f"{self.name} ended with code {code}:\n{self.tail()}")

    def tail(self, size: int = 2000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:]

    def usage(self) -> Usage:
        """CPU time of all its threads and its memory."""
        self.check()
        proc = Path(f"/proc/{self._child.pid}")
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        status = (proc / "status").read_text()
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M))
        return Usage(
            (int(fields[11]) + int(fields[12])) / TICKS,
            int(found["VmRSS"]) / 1024,
            int(found["VmHWM"]) / 1024,
        )

    def end(self, signal_kill: bool = False) -> int:
        """End it and wait; its exit code."""
        if signal_kill:
            self._child.kill()
        else:
            self._child.terminate()
        return self._child.wait()


class Pki:
    """One authority for all stores of a rehearsal, and everybody's files."""

    def __init__(self) -> None:
        self._directory = ROOT / "pki"
        self._directory.mkdir()
        self._authority = create_ca(datetime.now(UTC))
        self.ca = self._directory / "ca.crt"
        self.ca.write_bytes(self._authority.certificate)

    def files(self, profile: Profile) -> tuple[Path, Path]:
        """Certificate and key of a profile, made when asked for the first time."""
        paths = tuple(self._directory / f"{profile.common_name}.{end}" for end in ("crt", "key"))
        if not paths[0].exists():
            pair: KeyPair = issue(self._authority, profile, datetime.now(UTC))
            paths[1].touch(mode=0o600)
            paths[0].write_bytes(pair.certificate)
            paths[1].write_bytes(pair.key)
        return paths[0], paths[1]

    def user(self, url: str, name: str) -> StoreConfig:
        """How a user reaches a store."""
        certificate, key = self.files(Profile(name, client=True))
        return StoreConfig((url,), str(self.ca), str(certificate), str(key))


class MeshStore:
    """An etcd as a mesh member runs it: prepared by ``etcdinit``, TLS, users, roles."""

    def __init__(self, pki: Pki, cluster: str, port: int) -> None:
        self.cluster, self._pki = cluster, pki
        self.url = f"https://127.0.0.1:{port}"
        self._peer = f"http://127.0.0.1:{port + 1}"
        self._data = ROOT / f"etcd-{cluster}"
        self.admin = pki.user(self.url, f"admin-{cluster}")

    async def start(self) -> EtcdStore:
        """Prepare it, start it; a connection of its administrator."""
        init = [sys.executable, "-m", "clustermesh_apiserver", "etcdinit"]
        init += [f"--etcd-data-dir={self._data}", f"--cluster-name={self.cluster}"]
        process = await asyncio.create_subprocess_exec(
            *init, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise SimulationError(f"etcdinit failed:\n{said.decode(errors='replace')[-2000:]}")
        profile = mesh_profiles(self.cluster)["clustermesh-apiserver-server-cert"]
        certificate, key = self._pki.files(profile)
        child = Process(
            f"mesh-etcd-{self.cluster}",
            [
                *_etcd("clustermesh-apiserver", self._data, self.url, self._peer),
                "--client-cert-auth",
                f"--trusted-ca-file={self._pki.ca}",
                f"--cert-file={certificate}",
                f"--key-file={key}",
            ],
        )
        return await _when_up(self.admin, child)

    def file(self, user: str) -> str:
        """The text with which an agent reaches it."""
        config = self._pki.user(self.url, user)
        return (
            f"endpoints:\n- {self.url}\ntrusted-ca-file: {config.ca_file}\n"
            f"cert-file: {config.cert_file}\nkey-file: {config.key_file}\n"
        )


async def start_plain_etcd(port: int) -> tuple[Process, str]:
    """An etcd for an API server; its URL."""
    url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    child = Process("kube-etcd", _etcd("kube", ROOT / "kube-etcd", url, peer))
    await (await _when_up(StoreConfig((url,)), child)).close()
    return child, url


def _etcd(name: str, data: Path, url: str, peer: str) -> list[str]:
    return [
        "etcd",
        f"--name={name}",
        f"--data-dir={data}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={name}={peer}",
        "--unsafe-no-fsync",
        f"--max-txn-ops={TXN_OPS}",
        f"--quota-backend-bytes={_QUOTA}",
        "--logger=zap",
        "--log-level=warn",
    ]


async def _when_up(config: StoreConfig, child: Process) -> EtcdStore:
    try:
        async with asyncio.timeout(START_S):
            while True:
                child.check()
                try:
                    return await connect(config)
                except UnavailableError:
                    await asyncio.sleep(0.05)
    except TimeoutError:
        raise SimulationError(
            f"{child.name} does not answer after {START_S:.0f} s:\n{child.tail()}"
        ) from None
