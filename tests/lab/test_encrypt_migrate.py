"""Two joined clusters that begin to encrypt, and end it, while their pods speak with each other.

Between WireGuard and IPsec: tests/vm/test_migrate.py, for the kernel here has no ESP.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from kind.story import C1, C2
from tests.support import lab as labs
from tests.support.wireguard_world import World, judge
from tests.support.wireguard_world import agents as agents_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(600),
]

MESH = ("--context", C1, "--also", C2, "--wait-duration", "120")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = labs.start("em")
    try:
        yield World(made, encrypted=False)
    finally:
        labs.stop(made)


@pytest.fixture(autouse=True)
def _quiet(world: World) -> Iterator[None]:
    yield
    world.stop()


def stances(world: World) -> set[tuple[str, str]]:
    """What agents run."""
    found = [s["migration"] for s in world.status().values()]
    return {(said["sends"], said["accepts"]) for said in found}


def interrupted(world: World, *words: str, after: str) -> str:
    """A call that is killed when it has said something."""
    command = [sys.executable, "-u", "-m", "cli.main", "encrypt", "migrate", *words, *MESH]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=world.lab.env
    )
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if after in line:
            break
    child.kill()
    child.communicate()
    assert after in said, said
    return said


def agents(world: World) -> list[int]:
    return agents_of(world.lab.name)


def migrate(world: World, *words: str) -> None:
    done = world.isthmus("encrypt", "migrate", *words, *MESH)
    assert done.returncode == 0, done.stdout + done.stderr


def test_refused_and_taken_back(world: World) -> None:
    """Nothing is begun while a node is away or a cluster is not named; an interrupted migration
    goes back, and everything is as before.
    """
    if stances(world) != {("off", "off")}:  # another test has failed
        migrate(world, "--to", "off")
    traffic = world.steady()
    victim = agents(world)[0]
    os.kill(victim, 19)
    try:
        refused = world.isthmus("encrypt", "migrate", "--to", "wireguard", *MESH)
    finally:
        os.kill(victim, 18)
    assert refused.returncode == 1
    assert "is away" in refused.stderr, refused.stdout + refused.stderr
    assert "bring it back, or delete its Node object" in refused.stderr
    labs.wait_until("agents answer", lambda: stances(world) == {("off", "off")})

    alone = world.isthmus("encrypt", "migrate", "--to", "wireguard", "--context", C1)
    assert alone.returncode == 1
    assert f"cluster {C2} is in the mesh, too: name its context" in alone.stderr, alone.stderr

    interrupted(world, "--to", "wireguard", after="accepts wireguard too")
    other = world.isthmus("encrypt", "migrate", "--to", "ipsec", *MESH)
    assert "a migration from off to wireguard is under way" in other.stderr, other.stderr
    migrate(world, "--abort")
    assert stances(world) == {("off", "off")}
    judge([process.finish(60) for process in traffic])


def test_off_to_wireguard_and_back_under_traffic(world: World) -> None:
    """Killed and gone on with, by agents as well; nothing is lost or reset, and nothing is in clear
    text once it is done; and then back to clear text.
    """
    if stances(world) != {("off", "off")}:  # another test has failed
        migrate(world, "--to", "off")
    traffic = world.steady()
    interrupted(world, "--to", "wireguard", after="accepts wireguard too")
    for pid in agents(world)[:2]:
        os.kill(pid, 9)
    migrate(world)
    assert stances(world) == {("wireguard", "off")}

    with world.sniffing() as sightings:
        fresh = world.start(world.one, "steady-tcp", world.three, 7002, 0.02).ready()
        time.sleep(3)
        judge([fresh.finish()])
    assert sightings.leaked_bytes == 0

    migrate(world, "--to", "off")
    time.sleep(1)
    judge([process.finish(60) for process in traffic])
    assert stances(world) == {("off", "off")}
    for node in world.lab.topology.nodes:
        labs.wait_until(
            f"no device is left on {node.name}",
            lambda name=node.name: "ist_wg" not in world.lab.exec(name, "ip", "-br", "link")[1],
        )
    for context in (C1, C2):
        found = world.lab.get("configmap", "cilium-config", "-n", "kube-system", cluster=context)
        assert "encryption-accepts" not in found["data"]
        assert "encryption-migration" not in json.dumps(found["metadata"].get("annotations", {}))
