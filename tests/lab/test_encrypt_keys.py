"""New keys of IPsec by ``isthmus encrypt rotate``, in two joined clusters with real agents.

How keys change in the kernel: tests/vm/test_ipsec_agent.py, for the kernel here has no ESP. Without
it agents take new keys up and cannot send with them.
"""

import base64
import json
from collections.abc import Iterator

import pytest

from encryption.ipsec_keys import parse_secret
from kind.story import C1, C2
from tests.support import lab as labs
from tests.support.wireguard_world import World

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(600),
]

NAMED = ("-n", "kube-system")
SECRET = "cilium-ipsec-keys"
LINE = f"3+ rfc4106(gcm(aes)) {'0b' * 20} 128\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = labs.start("ek")
    try:
        found = World(made, encrypted=False)
        for context in (C1, C2):
            words = ("create", "secret", "generic", SECRET, f"--from-literal=keys={LINE}")
            made.kubectl(*NAMED, *words, cluster=context)
            patch = json.dumps({"data": {"enable-ipsec": "true"}})
            words = ("patch", "configmap", "cilium-config", "--type=merge", "-p", patch)
            made.kubectl(*NAMED, *words, cluster=context)
        labs.wait_until("all have key 3", lambda: current(found) == [3, 3, 3, 3], 120)
        yield found
    finally:
        labs.stop(made)


def current(world: World) -> list[int]:
    """Each node's key."""
    nodes = world._status().values()
    return [s["ipsec"]["current-key-id"] for s in nodes if s["mode"] == "IPsec"]


def secret(world: World, context: str) -> str:
    found = world.lab.get("secret", SECRET, *NAMED, cluster=context)
    return base64.b64decode(found["data"]["keys"]).decode()


def test_every_cluster_gets_the_next_key_and_agents_take_it_up(world: World) -> None:
    """A call that told only one of them is gone on with, with the same key."""
    labs.wait_until("no rotation is under way", lambda: _rotated(world), 120)
    written = secret(world, C1)
    assert secret(world, C2) == written
    assert written.startswith(LINE)
    assert [key.id for key in parse_secret(written)] == [3, 4]
    labs.wait_until("all have key 4", lambda: current(world) == [4, 4, 4, 4], 120)

    patch = json.dumps({"stringData": {"keys": LINE}})
    words = ("patch", "secret", SECRET, "--type=merge", "-p", patch)
    world.lab.kubectl(*NAMED, *words, cluster=C2)
    done = world.isthmus("encrypt", "rotate", "--context", C1, "--also", C2, "--no-wait")
    assert done.returncode == 0, done.stderr
    assert "key 4 is in the secret cilium-ipsec-keys of cluster cluster2\n" in done.stdout
    assert secret(world, C1) == secret(world, C2) == written


def _rotated(world: World) -> bool:
    """Agents that have just begun with IPsec announce their keys one after the other."""
    done = world.isthmus("encrypt", "rotate", "--context", C1, "--also", C2, "--no-wait")
    assert done.returncode == 0 or "is under way" in done.stderr, done.stderr
    return done.returncode == 0


def test_on_a_node_it_says_where_keys_are(world: World) -> None:
    """And how to make the next one."""
    code, said = world.lab.exec("cluster1-worker", "isthmus", "encrypt", "rotate")
    assert code == 1
    assert "in the secret cilium-ipsec-keys, into which `isthmus encrypt rotate" in said
