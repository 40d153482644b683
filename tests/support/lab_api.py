"""The lab's real API server for tests: its own process, its own etcd, TLS and a token."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.kube import Api, write_kubeconfig
from tests.support.tcp_proxy import TcpProxy

ETCD = "/usr/bin/etcd"
TOKEN = "test-token"
START_S = 20


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    paths = directory / "server.crt", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def wait_for_port(port: int, process: asyncio.subprocess.Process) -> None:
    """Until somebody listens. Raises ``AssertionError`` when the process ends first."""
    async with asyncio.timeout(START_S):
        while True:
            assert process.returncode is None, f"ended with code {process.returncode}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def stop(process: asyncio.subprocess.Process, *, kill: bool = False) -> None:
    """End a process of ours and wait for it."""
    if process.returncode is None:
        process.kill() if kill else process.terminate()
    await process.wait()


@asynccontextmanager
async def plain_etcd(directory: Path) -> AsyncIterator[str]:
    """An etcd without TLS on loopback; its URL."""
    port, peer = free_port(), f"http://127.0.0.1:{free_port()}"
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        ETCD,
        f"--data-dir={directory}",
        "--name=test",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=error",
    )
    try:
        await wait_for_port(port, process)
        yield url
    finally:
        await stop(process, kill=True)


@dataclass
class LabApi:
    """The server's process, which a test may restart."""

    arguments: list[str]
    port: int
    process: asyncio.subprocess.Process | None = field(default=None)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kind.apiserver", *self.arguments
        )
        await wait_for_port(self.port, self.process)

    async def stop(self, *, kill: bool = False) -> None:
        assert self.process is not None
        await stop(self.process, kill=kill)

    async def restart(self) -> None:
        """Its history is in memory: watches from before are told 410."""
        await self.stop(kill=True)
        await self.start()


@asynccontextmanager
async def lab_api(directory: Path) -> AsyncIterator[Api]:
    """The server of ``kind.apiserver``, which is what the lab's clusters run."""
    certificate, key = write_certificate(directory)
    (directory / "tokens").write_text(f'{TOKEN},tester,1,"system:masters"\n')
    port = free_port()
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(plain_etcd(directory / "etcd"))
        server = LabApi(
            [
                f"--etcd-endpoint={etcd}",
                f"--listen=127.0.0.1:{port}",
                f"--tls-cert={certificate}",
                f"--tls-key={key}",
                f"--token-file={directory / 'tokens'}",
            ],
            port,
        )
        await server.start()
        stack.push_async_callback(server.stop, kill=True)
        proxy = await stack.enter_async_context(TcpProxy("127.0.0.1", port).serve())
        user, cluster = {"token": TOKEN}, {"certificate-authority": str(certificate)}
        through = write_kubeconfig(
            directory / "kubeconfig", f"https://127.0.0.1:{proxy.port}", user, cluster
        )
        direct = write_kubeconfig(directory / "direct", f"https://127.0.0.1:{port}", user, cluster)
        yield Api(through, direct, proxy, server.restart)
