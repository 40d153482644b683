"""The agent's IPsec with real policies: bad key files, peers that cannot be, states that fail."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config import ConfigError
from agent.ipsec_view import collect, shape
from agent.mesh_encryption import remove_ipsec
from datapath.kernel_thread import KernelThread
from encryption.xfrm import Policies
from tests.support.agent import agent_node
from tests.support.datapath import FakeTable, kernel_thread
from tests.support.ipsec_agent import life, line, node, prune, until

pytestmark = pytest.mark.root


@pytest.fixture
def thread() -> Iterator[KernelThread]:
    with kernel_thread(own_network=True) as made:
        yield made


async def test_a_bad_key_file_ends_the_start(thread: KernelThread, tmp_path: Path) -> None:
    """A file that is missing or wrong is told in one sentence with the setting's name."""
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match=r"enable-ipsec: the IPsec key file .* cannot be read"):
        async with life(thread, file, FakeTable()):
            pass
    file.write_text("3 rfc4106(gcm(aes)) 00 128\n")
    with pytest.raises(ConfigError, match=r"without `\+`"):
        async with life(thread, file, FakeTable()):
            pass


async def test_a_bad_change_keeps_what_is(thread: KernelThread, tmp_path: Path) -> None:
    """Another key under a known ID, or rubbish, is told and changes nothing; then all goes on."""
    file = tmp_path / "keys"
    file.write_text(line(3))
    async with life(thread, file, FakeTable()) as agent:
        for text, says in ((line(3).replace("5a", "5b"), "as 4+"), ("rubbish\n", "line 1")):
            file.write_text(text)
            await until(says, lambda says=says: says in "".join(agent.ipsec.sentences()))
            assert agent.ipsec.opened.ring.key_ids == (3,)
            assert shape(agent.ipsec)["msg"] == "; ".join(agent.ipsec.sentences())
        file.write_text(line(4))
        await until("good again", lambda: agent.ipsec.sentences() == [])
        assert agent.ipsec.opened.ring.current == 4


async def test_keys_are_taken_up_also_while_rows_cannot_be_written(
    thread: KernelThread, tmp_path: Path
) -> None:
    """As on a kernel without ESP, where no node can announce that it receives with them."""
    file = tmp_path / "keys"
    file.write_text(line(3))
    async with life(thread, file, FakeTable()) as agent:
        agent.tell(node(2, 3))
        await agent.ipsec.states.attempted(agent.ipsec.states.revision)
        for key_id in (4, 5):
            file.write_text(line(key_id))
            await until("taken up", lambda k=key_id: agent.ipsec.opened.ring.current == k)
            await agent.ipsec.states.attempted(agent.ipsec.states.revision)


async def test_who_cannot_be_a_peer_is_told(thread: KernelThread, tmp_path: Path) -> None:
    """A node with WireGuard's key or no boot ID gets clear text and a sentence; a node that
    encrypts gets policies, and a number that a restart keeps.
    """
    file, rows = tmp_path / "keys", FakeTable()
    file.write_text(line(3))
    async with life(thread, file, rows) as agent:
        agent.tell(node(2, 255), node(3, 3, boot_id=""), node(4, 3), node(5, 0))
        prune(agent)
        wanted = {"192.0.2.2": 0, "192.0.2.3": 0, "192.0.2.4": 3, "192.0.2.5": 0}
        await until("rows", lambda: agent.sends_with() == wanted)
        problems = "\n".join(agent.ipsec.sentences())
        assert "own/node2 announces key 255" in problems
        assert "own/node3 announces IPsec and no boot ID" in problems
        policies = await Policies(thread.call).read()
        assert len(policies) == 4
        families = {found.name: found for found in collect(agent.ipsec)}
        assert families["cilium_ipsec_keys"].samples[0].value == 1
        numbers = {address: row.node_id for address, row in rows.rows.items()}
        assert sorted(numbers.values()) == [1, 2, 3, 4]
    async with life(thread, file, rows) as agent:
        agent.tell(node(5, 0), node(4, 3), node(2, 0), node(3, 0))
        await agent.ipsec.nodes.attempted(agent.ipsec.nodes.revision)
        assert {address: row.node_id for address, row in rows.rows.items()} == numbers


async def test_what_ipsec_left_goes_when_it_is_off(thread: KernelThread, tmp_path: Path) -> None:
    """Policies and rows: the one that blocks would stop WireGuard's own packets."""
    file, rows = tmp_path / "keys", FakeTable()
    file.write_text(line(3))
    async with life(thread, file, rows) as agent:
        agent.tell(node(2, 3))
        await until("written", lambda: len(rows.rows) == 1)
    assert len(await Policies(thread.call).read()) == 4
    datapath: Any = SimpleNamespace(nodes=rows)
    for _ in range(2):
        await remove_ipsec(thread.call, datapath)
        assert await Policies(thread.call).read() == {}
        assert rows.rows == {}


async def test_an_agent_process_with_ipsec(tmp_path: Path) -> None:
    """It comes up, marks at the underlay, serves pods, and tells its keys and nothing secret; off
    again, the program leaves the device.
    """
    file = tmp_path / "keys"
    file.write_text(line(3))
    async with agent_node(tmp_path) as found:
        found.flags = {"enable-ipsec": "true", "ipsec-key-file": str(file)}
        found.start()
        await found.ready()
        said = await found.get("encryption")
        assert (said["mode"], said["ipsec"]["current-key-id"]) == ("IPsec", 3)
        assert said["ipsec"]["decrypt-interfaces"] != []
        pod = await found.add(found.pod("web"))
        assert found.reaches(pod)
        links = found.bpf_root / "isthmus" / "links"
        assert any("from_network" in path.name for path in links.iterdir())
        assert "5a5a5a" not in str(said) + found.log.read_text()
        found.kill()
        found.flags = {}
        found.start()
        await found.ready()
        assert (await found.get("encryption"))["mode"] == "Disabled"
        assert not any("from_network" in path.name for path in links.iterdir())
        assert found.reaches(pod)
