"""``isthmus encrypt rotate`` with IPsec against an API server: what is written, when it ends."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from cli import encrypt_clusters, encrypt_rotate, mesh_ask
from encryption.ipsec_keys import parse_secret
from kube import resources
from kube.client import HttpClient
from tests.support.kube import fake_api

LINE = f"3+ rfc4106(gcm(aes)) {'0b' * 20} 128\n"
NAMESPACE = "kube-system"


async def furnish(api: HttpClient) -> None:
    """A cluster of one node with IPsec."""

    def named(name: str, **more: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}} | more

    async def create(resource: Any, item: dict[str, Any], namespace: str = NAMESPACE) -> None:
        await api.create(resources.untyped(resource), item, namespace)

    data = {"cluster-name": "one", "enable-ipsec": "true"}
    await create(resources.CONFIG_MAPS, named("cilium-config", data=data))
    keys = {"keys": base64.b64encode(LINE.encode()).decode()}
    await create(resources.SECRETS, named("cilium-ipsec-keys", data=keys))
    await create(resources.NODES, named("n"), "")
    agent = named("agent", spec={"nodeName": "n", "containers": [{"name": "cilium-agent"}]})
    key, _, value = mesh_ask.AGENT.partition("=")
    agent["metadata"]["labels"] = {key: value}
    await create(resources.PODS, agent)


async def keys(api: HttpClient) -> list[int]:
    found = await api.get(resources.untyped(resources.SECRETS), "cilium-ipsec-keys", NAMESPACE)
    return [key.id for key in parse_secret(base64.b64decode(found["data"]["keys"]).decode())]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Agents answer with these current keys, one after the other; the last one stays.

    They are all that is not real: no process of an agent runs here (tests/lab has some).
    """

    def say(*current: int) -> None:
        left = list(current)

        async def run_json(*_: Any) -> dict[str, Any]:
            number = left.pop(0) if len(left) > 1 else left[0]
            return {"mode": "IPsec", "ipsec": {"current-key-id": number, "peers": []}}

        monkeypatch.setattr(mesh_ask, "run_json", run_json)

    monkeypatch.setattr(encrypt_rotate, "LOOK_S", 0.01)  # how often it looks decides nothing
    return say


async def test_when_all_send_with_it_the_new_key_is_left_alone(
    tmp_path: Path, answers: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Until then the old one stands before it."""
    async with fake_api(tmp_path) as server, await server.direct() as api:
        await furnish(api)
        answers(3)
        assert await encrypt_rotate._rotate({"": api}, NAMESPACE, 0) == 0
        assert await keys(api) == [3, 4]
        answers(4, 4, 5)
        assert await encrypt_rotate._rotate({"": api}, NAMESPACE, 60) == 0
        assert await keys(api) == [5]
    assert capsys.readouterr().out.splitlines() == [
        "key 4 is in the secret cilium-ipsec-keys of cluster one",
        "key 5 is in the secret cilium-ipsec-keys of cluster one",
        "waits: node one/n has key 4",
        "done: every node sends with key 5",
    ]


async def test_a_secret_that_somebody_else_changes_is_not_overwritten(
    tmp_path: Path, answers: Callable[..., None]
) -> None:
    """It was read, and is another one now."""
    async with fake_api(tmp_path) as server, await server.direct() as api:
        await furnish(api)
        answers(3)
        members = await encrypt_clusters.look({"": api}, NAMESPACE)
        await encrypt_rotate._write({"": api}, members, "first\n", NAMESPACE)
        with pytest.raises(click.ClickException, match="somebody else has changed the secret"):
            await encrypt_rotate._write({"": api}, members, "second\n", NAMESPACE)
        found = await api.get(resources.untyped(resources.SECRETS), "cilium-ipsec-keys", NAMESPACE)
        assert base64.b64decode(found["data"]["keys"]) == b"first\n"
