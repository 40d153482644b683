"""kind.lab.services, pki and kubeconfig: what the processes of a lab are told."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from kind.kubelet.config import Config
from kind.lab import kubeconfig, pki, services, topology, up
from kind.lab.topology import Cluster, LabError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster whose files are below a directory of the test."""
    monkeypatch.setattr(topology, "LABS_DIRECTORY", tmp_path)
    made = topology.build("x", 1, 2).clusters[0]
    pki.make(made, NOW)
    return made


def test_kubelet_settings_are_its_configuration(cluster: Cluster) -> None:
    """The file that the lab writes has exactly the fields that the kubelet reads."""
    settings = services.kubelet_settings(cluster, cluster.nodes[1])
    assert set(settings) == {field.name for field in dataclasses.fields(Config)}
    assert settings["node_ip"] == "172.20.1.2"
    assert settings["pod_cidrs"] == ["10.1.2.0/24"]
    assert settings["control_plane"] is False


def test_certificates_name_who_they_are_for(cluster: Cluster) -> None:
    """The API server is reached by address and by service; a kubelet by its node's address."""
    files = pki.paths(cluster)

    def names(owner: str) -> set[str]:
        certificate = x509.load_pem_x509_certificate(files.cert(owner).read_bytes())
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {str(item.value) for item in san}

    assert {"127.0.0.1", "172.20.1.1", "10.101.0.1", "kubernetes.default.svc"} <= names("apiserver")
    assert names("cluster1-worker") == {"cluster1-worker", "172.20.1.2"}


def test_keys_are_private(cluster: Cluster) -> None:
    """Keys and tokens can be read by root only."""
    files = pki.paths(cluster)
    secret = [*files.directory.glob("*.key"), files.tokens]
    assert len(secret) > 4
    assert {path.stat().st_mode & 0o077 for path in secret} == {0}


def test_tokens_differ_and_are_found_by_name(cluster: Cluster) -> None:
    """Everybody has a token of their own."""
    files = pki.paths(cluster)
    owners = [pki.ADMIN, pki.CONTROLLERS, *(pki.node_user(node) for node in cluster.nodes)]
    assert len({files.token(owner) for owner in owners}) == len(owners)
    with pytest.raises(KeyError, match="nobody"):
        files.token("nobody")


def test_contexts_are_named_like_clusters() -> None:
    """A kubeconfig with two clusters; the first is current."""
    accesses = [
        kubeconfig.Access(name, f"https://127.0.0.1:{port}", b"PEM", "t")
        for name, port in (("cluster1", 1), ("cluster2", 2))
    ]
    made = kubeconfig.render(accesses)
    assert made["current-context"] == "cluster1"
    assert [item["name"] for item in made["contexts"]] == ["cluster1", "cluster2"]
    assert made["clusters"][1]["cluster"]["server"] == "https://127.0.0.1:2"


def test_dns_manifest_has_the_cluster_address(cluster: Cluster) -> None:
    """The Service has the address that pods are told, and the Deployment answers for it."""
    objects = {item["kind"]: item for item in up.dns_manifest(cluster)}
    assert objects["Service"]["spec"]["clusterIP"] == str(cluster.dns_address)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"].items() <= labels.items()


def test_real_control_plane_uses_the_same_addresses(cluster: Cluster) -> None:
    """With real binaries the ranges and files are the lab's own."""
    launches = services.real_control_plane(cluster, Path("/assets"))
    assert [launch.argv[0] for launch in launches] == [
        f"/assets/{name}" for name in up.REAL_BINARIES
    ]
    api, manager, _ = (set(launch.argv) for launch in launches)
    assert "--service-cluster-ip-range=10.101.0.0/16" in api & manager
    assert "--advertise-address=172.20.1.1" in api
    files = [word.partition("=")[2] for word in api if "-file=" in word]
    assert files
    assert all(Path(path).exists() for path in files)


def test_missing_binaries_are_named(tmp_path: Path) -> None:
    """--kube-assets without a binary says which."""
    for name in up.REAL_BINARIES[:2]:
        (tmp_path / name).touch(mode=0o755)
    with pytest.raises(LabError, match="kube-scheduler"):
        up.check(up.Request(kube_assets=str(tmp_path)))
