"""Ways to stores, tried by each process's own command: a real etcd, and what is none."""

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from certs.issue import create_ca
from clustermesh_apiserver.__main__ import main as apiserver
from model.cluster import ClusterName
from tests.conformance.test_remotes import configure
from tests.support.cli import isthmus
from tests.support.etcd import Etcd, mesh_etcd, when_up

pytestmark = pytest.mark.root

C2, C3 = ClusterName("c2"), ClusterName("c3")


@pytest.fixture(scope="module")
def far() -> Iterator[Etcd]:
    with mesh_etcd("c2") as found:
        asyncio.run(up(found))
        yield found


async def up(etcd: Etcd) -> None:
    await (await when_up(etcd.user("admin-c2"))).close()


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(*words: object) -> Result:
    return CliRunner().invoke(apiserver, [str(word) for word in words])


def test_from_an_agent(far: Etcd, closed: int, tmp_path: Path) -> None:
    """Exit status 1 when one is not reached, 0 when those that are named are."""
    where = ("--clustermesh-config", tmp_path, "--timeout", "30s")
    configure(tmp_path, C2, far)
    text = (tmp_path / "c2").read_text()
    (tmp_path / "c3").write_text(text.replace(f":{far.port}", f":{closed}"))
    (tmp_path / "c4").write_text("endpoints: {")
    every = isthmus("troubleshoot", "clustermesh", *where)
    one = isthmus("troubleshoot", "clustermesh", "c2", *where)
    data = isthmus("troubleshoot", "clustermesh", "c2", *where, "-o", "json")
    none = isthmus("troubleshoot", "clustermesh", "rome", *where)
    assert every.code == 1
    lines = {line.split()[0]: line for line in every.out.splitlines()}
    assert "ok (" in lines["c2"]
    assert "refused" in lines["c3"]
    assert "c4" in lines["c4"]
    assert one.code == 0, one.out
    for step in ("TCP connection: 127.0.0.1 after", "TLS: TLSv1.3", "etcd: cluster", "Heartbeat: "):
        assert f"    {step}" in one.out
    assert "Our certificate: CN=remote" in one.out
    assert "good until" in one.out
    assert [(e["cluster"], e["error"]) for e in data.json["endpoints"]] == [("c2", "")]
    assert abs(data.json["time"] - datetime.now(UTC).timestamp()) < 60
    assert none.code == 1
    assert "no file for cluster rome" in none.err


def test_an_unknown_authority(far: Etcd, tmp_path: Path) -> None:
    """The certificates of both sides are shown beside the reason."""
    configure(tmp_path, C2, far)
    other = tmp_path / ".other.crt"
    other.write_bytes(create_ca(datetime.now(UTC)).certificate)
    lines = (tmp_path / "c2").read_text().splitlines()
    lines = [f"trusted-ca-file: {other}" if "trusted-ca-file" in line else line for line in lines]
    (tmp_path / "c2").write_text("\n".join(lines))
    done = isthmus("troubleshoot", "clustermesh", "c2", "--clustermesh-config", tmp_path)
    assert done.code == 1
    assert "connect the clusters again" in done.out
    assert "Its certificate: " in done.out
    assert "TLS: " not in done.out


def test_what_listens_is_no_etcd(tmp_path: Path) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "c2").write_text(f"endpoints:\n- http://127.0.0.1:{server.getsockname()[1]}\n")
        done = isthmus(
            *("troubleshoot", "clustermesh", "--timeout", "1s"), "--clustermesh-config", tmp_path
        )
    assert done.code == 1
    assert "does not answer as etcd within 1 s" in done.out


def test_from_the_processes_of_a_mesh_store(far: Etcd, tmp_path: Path) -> None:
    """Each has its own files, and tells every step."""
    configure(tmp_path, C2, far)
    own = ask("clustermesh-dbg", "troubleshoot", "--etcd-config", tmp_path / "c2")
    assert own.exit_code == 0, own.output
    assert own.output.startswith("(local)   127.0.0.1:")
    assert "etcd: cluster" in own.output
    where = ("--clustermesh-config", tmp_path, "--etcd-config", tmp_path / "c2")
    both = ask("kvstoremesh-dbg", "troubleshoot", "--include-local", *where, "-o", "json")
    assert both.exit_code == 0, both.output
    assert [(r["cluster"], r["error"]) for r in json.loads(both.output)] == [
        ("(local)", ""),
        ("c2", ""),
    ]
    unknown = ask("kvstoremesh-dbg", "troubleshoot", "c9", *where)
    assert unknown.exit_code == 1
    assert "no file for cluster c9" in unknown.output


@pytest.mark.parametrize(
    "words",
    [
        ("clustermesh-dbg", "troubleshoot", "--etcd-config"),
        ("kvstoremesh-dbg", "troubleshoot", "--clustermesh-config"),
    ],
)
def test_outside_of_a_container(words: tuple[str, ...]) -> None:
    """Said, not taken for a mesh without clusters."""
    done = ask(*words, "/nonexistent/of/isthmus")
    assert done.exit_code == 1
    assert "/nonexistent/of/isthmus: run this in the container" in done.output
