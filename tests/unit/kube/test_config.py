"""The way to the API server: kubeconfigs good and broken, and in-cluster files."""

import subprocess
import sys
from pathlib import Path

import pytest

from kube.config import ConfigError, load, load_in_cluster, load_kubeconfig
from tests.support.kube import write_kubeconfig
from tests.support.lab_api import write_certificate

ROOT = Path(__file__).parents[3]

GOOD = {"token": "secret\n"}


async def test_token_of_a_kubeconfig(tmp_path: Path) -> None:
    """Address and token come from the chosen context."""
    path = write_kubeconfig(tmp_path / "config", "https://192.0.2.1:6443/", GOOD, {})
    access = await load_kubeconfig(path)
    assert access.server == "https://192.0.2.1:6443"
    assert await access.authorization() == "Bearer secret"
    assert "secret" not in repr(access)


async def test_missing_kubeconfig(tmp_path: Path) -> None:
    """The file and the remedy are named."""
    with pytest.raises(ConfigError, match=r"kubeconfig /no/where: no such file: name one with"):
        await load_kubeconfig("/no/where")


async def test_unknown_context(tmp_path: Path) -> None:
    """A context that is not there is named."""
    path = write_kubeconfig(tmp_path / "config", "https://192.0.2.1", GOOD, {})
    with pytest.raises(ConfigError, match='is "other" one of those in `kubectl config'):
        await load_kubeconfig(path, "other")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is not YAML"),
        ("", "has not the shape of a kubeconfig"),
        ("just text", "has not the shape of a kubeconfig"),
        ("{}", "Expected key current-context"),
        ("current-context: a\ncontexts: []\n", "Expected object with name a"),
        (
            "current-context: a\n"
            "contexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {server: 'ftp://x'}}]\n"
            "users: [{name: u, user: {token: t}}]\n",
            'server "ftp://x" is no http',
        ),
        (
            "current-context: a\n"
            "contexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: "
            "{server: 'https://x', certificate-authority-data: '%%'}}]\n"
            "users: [{name: u, user: {token: t}}]\n",
            "in it is not usable",
        ),
        (
            "current-context: a\n"
            "contexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {server: 'https://x', certificate-authority: /no/ca}}]\n"
            "users: [{name: u, user: {token: t}}]\n",
            "/no/ca",
        ),
    ],
)
async def test_broken_kubeconfig(tmp_path: Path, text: str, said: str) -> None:
    """Every way to break one gives one line with the file's name in it."""
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        await load_kubeconfig(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kubelet mounts, with the variables it sets."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    certificate, _ = write_certificate(tmp_path)
    certificate.rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("one\n")
    return tmp_path


async def test_in_cluster(service_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, authority and token; a renewed token is read when the old one has aged."""
    access = load_in_cluster(service_account)
    assert access.server == "https://[fd00::1]:443"
    assert access.ssl is not None
    assert len(access.ssl.get_ca_certs()) == 1
    assert await access.authorization() == "Bearer one"
    (service_account / "token").write_text("two")
    assert await access.authorization() == "Bearer one"
    monkeypatch.setattr("kube.config.TOKEN_AGE_S", -1)
    assert await access.authorization() == "Bearer two"
    (service_account / "token").unlink()
    assert await access.authorization() == "Bearer two"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("token", None, "cannot read .*/token: No such file.*: run as a pod with a service"),
        ("ca.crt", None, "cannot read .*: No such file"),
        ("ca.crt", "rubbish", "ca.crt is no certificate .*kube-root-ca.crt"),
    ],
)
def test_broken_service_account(
    service_account: Path, name: str, content: str | None, said: str
) -> None:
    """The file and the remedy are named."""
    path = service_account / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        load_in_cluster(service_account)


async def test_without_kubeconfig_a_pod_uses_its_service_account(service_account: Path) -> None:
    """The order: a named file, the pod's own, the user's."""
    with pytest.raises(ConfigError, match="in-cluster configuration: "):
        await load()


def test_a_pod_does_not_pay_for_reading_kubeconfigs(service_account: Path) -> None:
    """In a cluster the official client is not imported: 20 MB and a third of a second."""
    code = (
        "import sys; from pathlib import Path; from kube.config import load_in_cluster;"
        f"load_in_cluster(Path({str(service_account)!r}));"
        "assert not [m for m in sys.modules if m.startswith('kubernetes')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
