"""The operator renews certificates of the mesh in a real API server's Secrets."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certs import check
from certs.issue import KeyPair, create_ca, issue
from certs.profiles import CA_SECRET, LOCAL_SECRET, REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from cluster_operator import metrics
from cluster_operator.certificates import Renewer
from kube.client import HttpClient
from kube.resources import SECRETS, untyped
from telemetry.metrics import render
from tests.support.lab_api import lab_api

pytestmark = pytest.mark.root

NOW = datetime.now(UTC).replace(microsecond=0)
PROFILES = mesh_profiles("c1")
SPACE = "kube-system"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[HttpClient]:
    async with lab_api(tmp_path) as api, await api.connect() as connected:
        yield connected


async def put(client: HttpClient, name: str, data: dict[str, bytes]) -> None:
    item = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": SPACE},
        "data": {k: base64.b64encode(v).decode() for k, v in data.items()},
    }
    await client.create(untyped(SECRETS), item)


async def get(client: HttpClient, name: str) -> dict[str, bytes]:
    found: dict[str, Any] = await client.get(untyped(SECRETS), name, SPACE)
    return {k: base64.b64decode(v) for k, v in found["data"].items()}


async def mesh(client: HttpClient, ca: KeyPair, ages: dict[str, int], more: bytes = b"") -> None:
    """The Secrets of a member; certificates live 1,095 days and are so many days old."""
    await put(client, CA_SECRET, {"ca.crt": ca.certificate, "ca.key": ca.key})
    for name, profile in PROFILES.items():
        pair = issue(ca, profile, NOW - timedelta(days=ages.get(name, 0)))
        await put(client, name, dict(pair.secret_data(ca.certificate + more)))


def renewer(client: HttpClient) -> Renewer:
    return Renewer(client, SPACE, "c1", PROFILES)


async def test_the_last_third_of_a_life_is_for_renewal(client: HttpClient) -> None:
    """Those in it are new afterwards, by the same authority and with the same bundle; others are
    left alone, and so is everything in a second round."""
    ca, peer = create_ca(NOW - timedelta(days=800)), create_ca(NOW)
    ages = {SERVER_SECRET: 731, REMOTE_SECRET: 1094, LOCAL_SECRET: 700}
    await mesh(client, ca, ages, peer.certificate)
    before = {name: await get(client, name) for name in PROFILES}
    found = renewer(client)
    await found.renew(NOW)
    after = {name: await get(client, name) for name in PROFILES}
    assert {n for n in PROFILES if after[n] != before[n]} == {SERVER_SECRET, REMOTE_SECRET}
    for name in (SERVER_SECRET, REMOTE_SECRET):
        assert check.expires_at(after[name]["tls.crt"]) > NOW + timedelta(days=1090)
        assert after[name]["ca.crt"] == before[name]["ca.crt"]
        assert check.subject(after[name]["tls.crt"]) == check.subject(before[name]["tls.crt"])
        assert not check.problem(name, after[name]["tls.crt"], ca.certificate, NOW)
        assert after[name]["tls.key"] != before[name]["tls.key"]
    await found.renew(NOW)
    assert {name: await get(client, name) for name in PROFILES} == after
    text = render(metrics.of_certificates(found.expires, found.renewed))
    assert f'renewed_total{{secret="{SERVER_SECRET}"}} 1' in text
    for name in (*PROFILES, CA_SECRET):
        assert f'expiration_timestamp_seconds{{secret="{name}"}}' in text


async def test_a_rotation_under_way_is_not_disturbed(client: HttpClient) -> None:
    """The next authority is made already: who signs now is not for us to say."""
    ca, following = create_ca(NOW), create_ca(NOW)
    await mesh(client, ca, {REMOTE_SECRET: 1000})
    extra = {"next-ca.crt": following.certificate, "next-ca.key": following.key}
    data = {k: base64.b64encode(v).decode() for k, v in extra.items()}
    await client.patch(untyped(SECRETS), CA_SECRET, {"data": data}, SPACE)
    before = await get(client, REMOTE_SECRET)
    found = renewer(client)
    await found.renew(NOW)
    assert await get(client, REMOTE_SECRET) == before
    assert not found.renewed


async def test_what_another_authority_signed_is_left_alone(client: HttpClient) -> None:
    """A certificate that somebody else keeps is somebody else's to renew."""
    ca, other = create_ca(NOW), create_ca(NOW)
    await mesh(client, ca, {})
    pair = issue(other, PROFILES[REMOTE_SECRET], NOW - timedelta(days=1090))
    change = pair.secret_data(other.certificate)
    data = {k: base64.b64encode(v).decode() for k, v in change.items() if v is not None}
    await client.patch(untyped(SECRETS), REMOTE_SECRET, {"data": data}, SPACE)
    before = await get(client, REMOTE_SECRET)
    await renewer(client).renew(NOW)
    assert await get(client, REMOTE_SECRET) == before


async def test_without_a_mesh_there_is_nothing_to_do(client: HttpClient) -> None:
    found = renewer(client)
    await found.renew(NOW)
    assert not found.expires
    assert not found.renewed


async def test_a_mesh_without_its_authority_is_said(client: HttpClient) -> None:
    ca = create_ca(NOW)
    await mesh(client, ca, {})
    await client.delete(untyped(SECRETS), CA_SECRET, SPACE)
    with pytest.raises(ValueError, match="cilium-ca has no"):
        await renewer(client).renew(NOW)
