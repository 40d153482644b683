"""The way to the API server: kubeconfigs good and broken, and in-cluster files."""

from pathlib import Path

import pytest

from kube.config import ConfigError, load, load_kubeconfig
from tests.support.kube import write_kubeconfig

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


async def test_in_cluster_without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod without a service account is told so."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(
        "kubernetes.aio.config.incluster_config.SERVICE_TOKEN_FILENAME", "/no/token"
    )
    with pytest.raises(ConfigError, match=r"in-cluster configuration: .*run as a pod with"):
        await load()
