"""`isthmus install` and `clustermesh` as a person types them, against real API servers.

Two clusters are two API servers, each on an etcd of its own, without agents: what counts here is
which objects a command writes, what it refuses, and that a refused command writes nothing.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from certs import check
from certs.issue import create_ca, issue
from certs.profiles import REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from kvstore.config import parse_store_config
from tests.support import kind_apiserver
from tests.support.mesh_pair import SYSTEM, Pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    with (
        kind_apiserver.cluster(directory / "a") as a,
        kind_apiserver.cluster(directory / "b") as b,
    ):
        yield Pair(directory, a=a, b=b)


@pytest.fixture
def ready(pair: Pair) -> Pair:
    """Two installed, enabled clusters that are not connected; each test starts from here."""
    pair.fresh()
    return pair


CONNECT = ("clustermesh", "connect", "--context", "a", "--destination-context", "b")
DISCONNECT = ("clustermesh", "disconnect", "--context", "a", "--destination-context", "b")


def test_install_is_repeatable(pair: Pair) -> None:
    """A second install with another value changes that value and makes nothing twice."""
    words = ("install", "--context", "a", "--cluster-name", "cluster-a", "--cluster-id", "1")
    pair.good(*words)
    first = set(pair.everything("a"))
    assert "is installed in cluster cluster-a (ID 1)" in pair.good(*words, "--set", "MTU=1400")
    assert set(pair.everything("a")) == first
    config = pair.servers["a"].get(f"{SYSTEM}/configmaps/cilium-config").body["data"]
    assert (config["cluster-name"], config["mtu"]) == ("cluster-a", "1400")
    for path in ("daemonsets/cilium", "deployments/cilium-operator"):
        assert pair.servers["a"].get(f"/apis/apps/v1/namespaces/kube-system/{path}").code == 200


def test_uninstall_leaves_nothing_and_may_be_repeated(pair: Pair) -> None:
    """All workloads and the configuration go; a second time there is nothing to do."""
    pair.good("install", "--context", "b", "--cluster-name", "cluster-b", "--cluster-id", "2")
    for _ in range(2):
        pair.good("uninstall", "--context", "b")
        left = [key for key in pair.everything("b") if "cilium" in key.rpartition("/")[2]]
        assert [key for key in left if "secrets" not in key] == []


def test_enable_issues_certificates(ready: Pair) -> None:
    """Server and client certificates of the cluster's own CA are where agents look for them."""
    authority = ready.secret("a", "cilium-ca")["ca.crt"]
    now = datetime.now(UTC)
    for name in mesh_profiles("cluster-a"):
        data = ready.secret("a", name)
        assert check.problem(name, data["tls.crt"], authority, now) == ""
        assert data["ca.crt"] == authority
    service = ready.servers["a"].get(f"{SYSTEM}/services/clustermesh-apiserver").body
    assert service["spec"]["ports"][0]["nodePort"] == 32379


def test_enable_again_changes_nothing(ready: Pair) -> None:
    """Nothing is issued anew while it is good, so nothing restarts."""
    before = ready.everything("a")
    ready.good("clustermesh", "enable", "--context", "a")
    assert ready.everything("a") == before


def test_enable_mends_an_expired_certificate(ready: Pair) -> None:
    """The remedy that messages name works: enable issues what has expired."""
    ready.put_secret("a", REMOTE_SECRET, expired(ready))
    ready.good("clustermesh", "enable", "--context", "a")
    data = ready.secret("a", REMOTE_SECRET)
    assert check.problem("x", data["tls.crt"], data["ca.crt"], datetime.now(UTC)) == ""


def test_shared_authority(pair: Pair) -> None:
    """With ``--ca-from`` the second cluster issues from the first one's CA."""
    for name, number in (("a", 1), ("b", 2)):
        words = ("--cluster-name", f"cluster-{name}", "--cluster-id", str(number))
        pair.good("install", "--context", name, *words)
        pair.good("clustermesh", "disable", "--context", name)
    pair.good("clustermesh", "enable", "--context", "a")
    pair.servers["b"].request("DELETE", f"{SYSTEM}/secrets/cilium-ca")
    pair.good("clustermesh", "enable", "--context", "b", "--ca-from", "a")
    assert pair.secret("a", "cilium-ca") == pair.secret("b", "cilium-ca")
    assert pair.secret("b", SERVER_SECRET)["ca.crt"] == pair.secret("a", "cilium-ca")["ca.crt"]
    pair.servers["b"].request("DELETE", f"{SYSTEM}/secrets/cilium-ca")


def test_connect_writes_both_sides(ready: Pair) -> None:
    """Each side learns endpoint, address and authority of the other."""
    assert "✅ Connected cluster cluster-a <=> cluster-b!" in ready.good(*CONNECT)
    for own, other, address in (("a", "b", "192.0.2.2"), ("b", "a", "192.0.2.1")):
        written = ready.secret(own, "cilium-clustermesh")
        assert list(written) == [f"cluster-{other}"]
        config = parse_store_config(written[f"cluster-{other}"], "written")
        assert [(t.address, t.port) for t in config.targets()] == [(address, 32379)]
        trust = ready.secret(own, REMOTE_SECRET)["ca.crt"]
        theirs = ready.secret(other, SERVER_SECRET)["tls.crt"]
        assert check.problem("server", theirs, trust, datetime.now(UTC)) == ""
        accepted = ready.secret(own, SERVER_SECRET)["ca.crt"]
        client = ready.secret(other, REMOTE_SECRET)["tls.crt"]
        assert check.problem("client", client, accepted, datetime.now(UTC)) == ""


def test_connect_twice_and_disconnect_twice(ready: Pair) -> None:
    """Both are repeatable; after disconnect neither side knows the other."""
    ready.good(*CONNECT)
    before = {name: ready.secret(name, "cilium-clustermesh") for name in "ab"}
    ready.good(*CONNECT)
    assert {name: ready.secret(name, "cilium-clustermesh") for name in "ab"} == before
    for _ in range(2):
        assert "✅ Disconnected cluster cluster-a <x> cluster-b!" in ready.good(*DISCONNECT)
        assert [ready.secret(name, "cilium-clustermesh") for name in "ab"] == [{}, {}]


def test_unicast_tells_one_side_only(ready: Pair) -> None:
    """The destination accepts our certificate and is told nothing."""
    said = ready.good(*CONNECT, "--connection-mode", "unicast")
    assert "✅ Connected cluster cluster-a => cluster-b!" in said
    assert list(ready.secret("a", "cilium-clustermesh")) == ["cluster-b"]
    assert ready.servers["b"].get(f"{SYSTEM}/secrets/cilium-clustermesh").code == 404


def test_named_endpoint(ready: Pair) -> None:
    """A named endpoint is written in place of what was found; a wrong one is refused."""
    ready.good(*CONNECT, "--destination-endpoint", "198.51.100.7:2379")
    written = ready.secret("a", "cilium-clustermesh")["cluster-b"]
    assert [t.authority for t in parse_store_config(written, "w").targets()] == [
        "198.51.100.7:2379"
    ]
    assert "is not IP:PORT" in ready.refused(*CONNECT, "--source-endpoint", "nowhere")


def configure(pair: Pair, name: str, **data: str) -> None:
    body = {"data": {key.replace("_", "-"): value for key, value in data.items()}}
    pair.patch(name, f"{SYSTEM}/configmaps/cilium-config", body)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cluster_name": "cluster-a"}, ("named cluster-a", "--cluster-name")),
        ({"cluster_id": "1"}, ("cluster-a and cluster-b both have ID 1", "--cluster-id")),
        ({"cluster_id": "0"}, ("cluster-b", "ID 0")),
        ({"cluster_id": "256"}, ("cluster-b", "ID 256", "1 to 255")),
        ({"cluster_id": "two"}, ("cluster of context 'b'", "two", "install it again")),
        ({"cluster_name": "Cluster-B"}, ('"Cluster-B"', "lower-case")),
        ({"cluster_name": "b" * 33}, ("b" * 33, "at most 32")),
        ({"max_connected_clusters": "511"}, ("255 and 511", "set both to the same")),
    ],
)
def test_connect_refuses(ready: Pair, data: dict[str, str], words: tuple[str, ...]) -> None:
    """One message names object and remedy, and neither cluster was written to."""
    configure(ready, "b", **data)
    said = ready.refused(*CONNECT)
    assert all(word in said for word in words), said


def test_connect_refuses_overlapping_pod_prefixes(ready: Pair) -> None:
    """Prefixes of the nodes are compared, across clusters."""
    ready.node("b", "10.1.0.128/25")
    said = ready.refused(*CONNECT)
    assert "pod CIDRs 10.1.0.0/24 and 10.1.0.128/25 overlap" in said


def expired(pair: Pair) -> dict[str, bytes]:
    """A client certificate of the right authority whose time is over."""
    data = pair.secret("a", "cilium-ca")
    authority = type(create_ca(datetime.now(UTC)))(data["ca.crt"], data["ca.key"])
    old = datetime.now(UTC) - timedelta(days=2000)
    pair_of_keys = issue(authority, mesh_profiles("cluster-a")[REMOTE_SECRET], old)
    return pair_of_keys.secret_data(data["ca.crt"])


def test_connect_refuses_an_expired_certificate(ready: Pair) -> None:
    """The Secret and the command that mends it are named."""
    ready.put_secret("a", REMOTE_SECRET, expired(ready))
    said = ready.refused(*CONNECT)
    assert f"Secret kube-system/{REMOTE_SECRET}: expired on" in said
    assert "isthmus clustermesh enable" in said


def test_connect_refuses_a_foreign_certificate(ready: Pair) -> None:
    """A server certificate of an authority that its own bundle does not hold."""
    now = datetime.now(UTC)
    stranger = issue(create_ca(now), mesh_profiles("cluster-b")[SERVER_SECRET], now)
    trust = ready.secret("b", "cilium-ca")["ca.crt"]
    ready.put_secret("b", SERVER_SECRET, stranger.secret_data(trust))
    assert f"Secret kube-system/{SERVER_SECRET}: issued by" in ready.refused(*CONNECT)


def test_connect_refuses_the_number_of_a_third(ready: Pair) -> None:
    """The ID of a cluster that is already connected stays its own."""
    ready.good(*CONNECT)
    configure(ready, "b", cluster_id="3")
    assert "already connected to a cluster cluster-b with ID 2" in ready.refused(*CONNECT)
    ready.good(*DISCONNECT)
    ready.good(*CONNECT)
    ids = ready.servers["a"].get(f"{SYSTEM}/secrets/cilium-clustermesh").body["metadata"]
    assert json.loads(ids["annotations"]["isthmus.io/cluster-ids"]) == {"cluster-b": 3}


def test_connect_needs_a_mesh_store(ready: Pair) -> None:
    """A cluster without one is told how to get it."""
    ready.good("clustermesh", "disable", "--context", "b")
    said = ready.refused(*CONNECT)
    assert "context b" in said
    assert "isthmus clustermesh enable" in said


@pytest.mark.parametrize("word", ["enable", "status"])
def test_not_installed(pair: Pair, word: str) -> None:
    """Without an installation the first command is named."""
    pair.good("uninstall", "--context", "b")
    said = pair.refused("clustermesh", word, "--context", "b")
    assert "cilium-config" in said
    assert "isthmus install" in said


def test_disable_leaves_no_secret_but_the_authority(ready: Pair) -> None:
    """Store, certificates and connections go; the CA stays, for it may be somebody else's."""
    ready.good(*CONNECT)
    ready.good("clustermesh", "disable", "--context", "a")
    left = [k for k in ready.everything("a") if "clustermesh" in k]
    assert left == []
    assert ready.secret("a", "cilium-ca")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("no such file",)),
        ("{", ("not YAML",)),
        ("[]", ("kubeconfig",)),
        (yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": []}), ("context",)),
    ],
)
def test_broken_kubeconfig(
    pair: Pair, tmp_path: Path, text: str | None, words: tuple[str, ...]
) -> None:
    """The file is named, with what is wrong with it."""
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    said = pair.refused("clustermesh", "status", "--kubeconfig", str(path), "--context", "a")
    assert str(path) in said
    assert all(word in said for word in words), said


def test_unknown_context(pair: Pair) -> None:
    """A context that the kubeconfig does not have is named."""
    assert "nowhere" in pair.refused("clustermesh", "status", "--context", "nowhere")


def test_kvstoremesh_sends_agents_to_their_own_store(ready: Pair) -> None:
    """Enabled before connecting: agents get the local address, the mirror the real one; back."""
    ready.good("clustermesh", "enable", "--context", "a", "--enable-kvstoremesh")
    deployment = "/apis/apps/v1/namespaces/kube-system/deployments/clustermesh-apiserver"

    def containers() -> list[str]:
        found = ready.servers["a"].get(deployment).body["spec"]["template"]["spec"]
        return [c["name"] for c in found["containers"]]

    assert "kvstoremesh" in containers()
    ready.good(*CONNECT)
    local = parse_store_config(ready.secret("a", "cilium-clustermesh")["cluster-b"], "")
    assert local.endpoints == ("https://clustermesh-apiserver.kube-system.svc:32383",)
    assert local.host_aliases == {"clustermesh-apiserver.kube-system.svc": ("192.0.2.1",)}
    assert local.cert_file.endswith("/local-etcd-client.crt")
    real = parse_store_config(ready.secret("a", "cilium-kvstoremesh")["cluster-b"], "")
    assert real.endpoints == ("https://cluster-b.mesh.cilium.io:32379",)
    assert real.host_aliases == {"cluster-b.mesh.cilium.io": ("192.0.2.2",)}
    other = parse_store_config(ready.secret("b", "cilium-clustermesh")["cluster-a"], "")
    assert other.host_aliases == {"cluster-a.mesh.cilium.io": ("192.0.2.1",)}
    held = ready.secret("a", "cilium-clustermesh")["cluster-b"]
    stale = held.replace(b":32383", b":32379") + b"isthmus-cache-ttl: 5m\n"  # as once written
    ready.put_secret("a", "cilium-clustermesh", {"cluster-b": stale})
    ready.good("clustermesh", "enable", "--context", "a")  # says nothing of it: it stays
    assert "kvstoremesh" in containers()
    moved = ready.secret("a", "cilium-clustermesh")["cluster-b"]
    assert moved == held + b"isthmus-cache-ttl: 5m\n"
    ready.good("clustermesh", "enable", "--context", "a", "--enable-kvstoremesh=false")
    assert "kvstoremesh" not in containers()
    direct = parse_store_config(ready.secret("a", "cilium-clustermesh")["cluster-b"], "")
    assert direct == real
    assert ready.servers["a"].get(f"{SYSTEM}/secrets/cilium-kvstoremesh").code == 404


def test_kvstoremesh_of_a_connected_cluster(ready: Pair) -> None:
    """Enabled later: what was connected moves over, a disconnect then clears both secrets."""
    ready.good(*CONNECT)
    real = ready.secret("a", "cilium-clustermesh")["cluster-b"]
    ready.good("clustermesh", "enable", "--context", "a", "--enable-kvstoremesh")
    assert ready.secret("a", "cilium-kvstoremesh") == {"cluster-b": real}
    local = parse_store_config(ready.secret("a", "cilium-clustermesh")["cluster-b"], "")
    assert local.ca_file.endswith("/local-etcd-client-ca.crt")
    ready.good(*DISCONNECT)
    assert ready.secret("a", "cilium-kvstoremesh") == {}
    assert ready.secret("a", "cilium-clustermesh") == {}
    ready.good("clustermesh", "disable", "--context", "a")
    assert ready.servers["a"].get(f"{SYSTEM}/secrets/cilium-kvstoremesh").code == 404
