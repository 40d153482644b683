"""Kubeconfigs that are read without the official client: the same comes out, and no other is."""

import base64
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kube import plain_kubeconfig
from kube.config import load_any_kubeconfig, load_kubeconfig
from tests.support.kube import write_kubeconfig
from tests.support.lab_api import write_certificate

ROOT = Path(__file__).parents[3]
SERVER = "https://192.0.2.1:6443/"


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("how", ["files", "relative files", "data", "data before files"])
@pytest.mark.parametrize("token", ["", "secret\n"])
async def test_as_the_official_client(tmp_path: Path, how: str, token: str) -> None:
    """Address, authority, certificate and token of every plain form are those that it finds."""
    certificate, key = write_certificate(tmp_path)
    cluster: dict[str, str] = {}
    user = {"token": token} if token else {}
    for entry, name, file in (
        (cluster, "certificate-authority", certificate),
        (user, "client-certificate", certificate),
        (user, "client-key", key),
    ):
        if how.startswith("data"):
            entry[f"{name}-data"] = data(file)
        if how != "data":
            entry[name] = "/no/where" if how == "data before files" else str(file)
        if how == "relative files":
            entry[name] = file.name
    path = write_kubeconfig(tmp_path / "config", SERVER, user, cluster)
    assert plain_kubeconfig.read(path, "") is not None
    for context in ("", "test"):
        ours = await load_kubeconfig(path, context)
        theirs = await load_any_kubeconfig(path, context)
        assert await ours.authorization() == await theirs.authorization()
        for field in ("server", "server_name", "proxy"):
            assert getattr(ours, field) == getattr(theirs, field)
        assert ours.ssl is not None
        assert theirs.ssl is not None
        assert ours.ssl.get_ca_certs() == theirs.ssl.get_ca_certs() != []
        for flag in ("verify_mode", "check_hostname", "verify_flags", "options"):
            assert getattr(ours.ssl, flag) == getattr(theirs.ssl, flag)
        assert ours.ssl.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("token", ["", "secret"])
async def test_without_tls(tmp_path: Path, token: str) -> None:
    """What ``kubectl proxy`` offers, by either reader."""
    user = {"token": token} if token else {}
    path = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:8001/", user, {})
    assert plain_kubeconfig.read(path, "") == ("http://127.0.0.1:8001", None, token)
    for access in (await load_kubeconfig(path), await load_any_kubeconfig(path)):
        assert access.server == "http://127.0.0.1:8001"
        assert (access.ssl, access.server_name, access.proxy) == (None, None, None)
        assert await access.authorization() == (f"Bearer {token}" if token else None)


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        ({"exec": {"command": "aws"}}, {}),
        ({"auth-provider": {"name": "oidc"}}, {}),
        ({"tokenFile": "/token"}, {}),
        ({"username": "u", "password": "p"}, {}),
        ({"token": "t", "as": "somebody"}, {}),
        ({"token": "t"}, {"insecure-skip-tls-verify": True}),
        ({"token": "t"}, {"tls-server-name": "name"}),
        ({"token": "t"}, {"proxy-url": "http://192.0.2.2"}),
        ({"token": "t"}, {"server": "ftp://192.0.2.1"}),
        ({"token": "t"}, {"server": "http://192.0.2.1", "certificate-authority": "ca.crt"}),
        ({"client-key": "key"}, {"server": "http://192.0.2.1"}),
        ({"token": "t"}, {"certificate-authority": "/no/where"}),
        ({"token": "t"}, {"certificate-authority-data": "%%"}),
        ({"token": 5}, {}),
    ],
    ids=lambda entry: ",".join(entry),
)
def test_what_is_not_plain_is_not_read(
    tmp_path: Path, user: dict[str, str], cluster: dict[str, str]
) -> None:
    """It is the official client's, with all that it can and all that it says."""
    path = write_kubeconfig(tmp_path / "config", SERVER, user, cluster)
    assert plain_kubeconfig.read(path, "") is None


def test_others_in_the_file_do_not_matter(tmp_path: Path) -> None:
    """A context is judged by what it names; one that is not there, or twice, is not plain."""
    path = tmp_path / "config"
    write_kubeconfig(path, SERVER, {"token": "t"}, {})
    whole = yaml.safe_load(path.read_text())
    whole["users"].append({"name": "cloud", "user": {"exec": {"command": "aws"}}})
    whole["contexts"].append({"name": "cloud", "context": {"cluster": "test", "user": "cloud"}})
    path.write_text(yaml.safe_dump(whole))
    assert plain_kubeconfig.read(str(path), "test") is not None
    assert plain_kubeconfig.read(str(path), "cloud") is None
    assert plain_kubeconfig.read(str(path), "other") is None
    whole["users"].append({"name": "test", "user": {"token": "other"}})
    path.write_text(yaml.safe_dump(whole))
    assert plain_kubeconfig.read(str(path), "test") is None


def test_it_does_not_load_the_official_client(tmp_path: Path) -> None:
    """Which takes as long as most commands."""
    path = write_kubeconfig(tmp_path / "config", SERVER, {"token": "t"}, {})
    code = (
        "import asyncio, sys; from kube.config import load_kubeconfig;"
        f"asyncio.run(load_kubeconfig({path!r}));"
        "assert not [m for m in sys.modules if m.startswith('kubernetes')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
