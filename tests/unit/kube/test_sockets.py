"""A client that is closed leaves no connection open behind it."""

import asyncio
import gc
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kube.client import HttpClient
from kube.resources import NODES
from tests.support.lab_api import write_certificate


class Access:
    """Of a server with this certificate."""

    server_name = None
    proxy = None

    def __init__(self, port: int, certificate: Path) -> None:
        self.server = f"https://127.0.0.1:{port}"
        self.ssl = ssl.create_default_context(cafile=str(certificate))

    async def authorization(self) -> str | None:
        return None


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Access]:
    """Takes a request, never answers it, and is slow to say goodbye as well."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as connection, suppress(OSError):
                while connection.recv(4096):
                    pass
                time.sleep(0.1)
                connection.unwrap()

        thread = threading.Thread(target=serve)
        thread.start()
        yield Access(listening.getsockname()[1], certificate)
        thread.join()


def test_requests_that_were_given_up_are_closed_with_the_client(slow: Access) -> None:
    """The loop may end at once: what is still open then fails this test as a lost transport."""

    async def give_up() -> None:
        async with HttpClient(slow) as client:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.list(NODES)

    asyncio.run(give_up())
    gc.collect()
