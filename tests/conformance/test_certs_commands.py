"""`isthmus certs` against real API servers: what is listed, and what is refused."""

import json

from tests.conformance.test_clustermesh_commands import CONNECT, Pair, pair, ready

__all__ = ["pair", "ready"]  # fixtures


def test_certificates_are_listed(ready: Pair) -> None:
    """Every Secret of the mesh with its subject, its authority and its state."""
    rows = json.loads(ready.good("certs", "list", "--context", "a", "-o", "json"))
    assert {r["subject"] for r in rows} == {
        "Cilium CA",
        "clustermesh-apiserver.cilium.io",
        "admin-cluster-a",
        "remote",
        "local-cluster-a",
    }
    assert len({r["authority"] for r in rows}) == 1
    assert {r["state"] for r in rows} == {"good"}
    lines = ready.good("certs", "list", "--context", "a").splitlines()
    assert lines[0].split() == ["SECRET", "SUBJECT", "AUTHORITY", "EXPIRES", "STATE"]
    assert len(lines) == 6


def test_a_bad_certificate_is_listed_as_bad(ready: Pair) -> None:
    """Exit status 1, and the row says what is wrong."""
    ready.put_secret("a", "clustermesh-apiserver-remote-cert", {"tls.crt": b"nonsense"})
    done = ready.isthmus("certs", "list", "--context", "a")
    assert done.returncode == 1
    assert "not a PEM certificate" in done.stdout


def test_a_connected_cluster_must_be_named(ready: Pair) -> None:
    """A new authority that a peer does not learn would cut it off: nothing is written."""
    ready.good(*CONNECT)
    rotate = ("certs", "rotate", "--ca", "--context", "a")
    assert "connected to cluster-b" in ready.refused(*rotate)
    ready.good("clustermesh", "disconnect", "--context", "a", "--destination-context", "b")
    assert "--ignore-authority" in ready.refused(*rotate)


def test_without_a_store_there_is_nothing_to_rotate(ready: Pair) -> None:
    """The command says what to do first."""
    ready.good("clustermesh", "disable", "--context", "a")
    assert "isthmus clustermesh enable" in ready.refused("certs", "rotate", "--context", "a")
