"""The agent's IPsec in a kernel that has ESP: start, rotation by the file, restart in it."""

from pathlib import Path

from encryption.xfrm import Policies, States
from tests.support.datapath import FakeTable, kernel_thread
from tests.support.ipsec_agent import life, line, node, prune, until


async def test_a_rotation_and_a_restart_in_its_middle(tmp_path: Path) -> None:
    """Receive, announce, send; the old key stays while a peer announces it, also for an agent that
    was started again and has only the new one in its file.
    """
    file, rows = tmp_path / "keys", FakeTable()
    file.write_text(line(3))
    with kernel_thread(own_network=True) as thread:
        states, policies = States(thread.call), Policies(thread.call)

        async def spis() -> set[int]:
            return {key.spi for key in await states.read()}

        async with life(thread, file, rows) as agent:
            agent.tell(node(2, 3), node(3, 3))
            prune(agent)
            await until("announced", lambda: agent.announced == [0, 3])
            await until("sends", lambda: set(agent.sends_with().values()) == {3})
            assert len(await states.read()) == 4
            assert len(await policies.read()) == 6

            file.write_text(line(4))
            await until("announced", lambda: agent.announced[-1] == 4)
            assert await spis() == {3, 4}
            assert set(agent.sends_with().values()) == {3}
            agent.tell(node(2, 4))
            await until("sends", lambda: agent.sends_with()["192.0.2.2"] == 4)
            assert agent.sends_with()["192.0.2.3"] == 3
            before = await states.read()

        async with life(thread, file, rows) as agent:
            assert agent.announced == [4]
            agent.tell(node(2, 4), node(3, 3))
            prune(agent)
            await until("written", lambda: agent.ipsec.states.pruning and len(rows.rows) == 2)
            await agent.ipsec.states.attempted(agent.ipsec.states.revision)
            assert await states.read() == before
            assert agent.sends_with() == {"192.0.2.2": 4, "192.0.2.3": 3}
            agent.tell(node(3, 4))
            await until("retired", lambda: agent.sends_with()["192.0.2.3"] == 4)
            await until("retired", lambda: not agent.ipsec.opened.spared)
            await agent.ipsec.states.attempted(agent.ipsec.states.revision)
            assert await spis() == {4}
            agent.mesh.nodes.drop(node(3, 4).cluster, node(3, 4).name)
            await until("gone", lambda: len(rows.rows) == 1)
            await agent.ipsec.states.attempted(agent.ipsec.states.revision)
            assert len(await states.read()) == 2
