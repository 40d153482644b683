"""`isthmus troubleshoot clustermesh`: sockets that answer, that do not, and that speak no TLS."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.issue import create_ca, issue
from certs.profiles import Profile
from kvstore.ways import reach
from tests.support.cli import isthmus

AUTHORITY = create_ca(datetime.now(UTC))


@contextmanager
def listener(directory: Path | None = None) -> Iterator[int]:
    """Accepts one connection after the other; with a directory it speaks TLS. Its port."""
    context = None
    if directory is not None:
        pair = issue(AUTHORITY, Profile("s", ("127.0.0.1",), server=True), datetime.now(UTC))
        path = directory / "pair"
        path.write_bytes(pair.certificate + pair.key)
        (directory / "ca").write_bytes(AUTHORITY.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        if context is None:
                            connection.sendall(b"220 hello\r\n" * 20)
                        else:
                            context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_reached_over_tls(tmp_path: Path) -> None:
    """Whose certificate it is does not matter here."""
    with listener(tmp_path) as port:
        row = reach(f"127.0.0.1:{port}", 5)
    assert row["error"] == ""
    assert len(row["certificate"]) == 64


def test_not_reach() -> None:
    """Nobody listens, somebody else listens, and no address at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in reach(f"127.0.0.1:{port}", 5)["error"]
    with listener() as port:
        assert "does not speak TLS" in reach(f"127.0.0.1:{port}", 5)["error"]
    assert reach("nowhere", 1)["error"]


def test_broken_file(tmp_path: Path) -> None:
    (tmp_path / "oslo").write_text("endpoints: {")
    done = isthmus("troubleshoot", "clustermesh", "--clustermesh-config", tmp_path)
    assert done.code == 1
    assert "oslo" in done.out


@pytest.mark.parametrize("place", ["/nonexistent/of/isthmus"])
def test_no_directory(place: str) -> None:
    """Outside of a container there is none: said, not taken for a mesh without clusters."""
    done = isthmus("troubleshoot", "clustermesh", "--clustermesh-config", place)
    assert done.code == 1
    assert place in done.err
    assert "container" in done.err
