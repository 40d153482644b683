"""The kernel of the virtual machine is what these tests are for, and our datapath works on it."""

import os
import subprocess
from pathlib import Path

import pytest

from datapath import probes
from tests.support.bpf import PROGRAMS, Machine
from tests.support.nodes import two_nodes


def test_it_is_the_kernel_we_mean() -> None:
    """Linux 6.1 of Debian, and not the machine's own."""
    assert os.uname().release.startswith("6.1.")
    assert "Debian" in Path("/proc/version").read_text()


@pytest.mark.parametrize("module", ["wireguard", "esp4", "esp6", "xfrm_user", "vxlan", "veth"])
def test_modules_are_there(module: str) -> None:
    """What encryption and the datapath need of this kernel can be loaded."""
    subprocess.run(["modprobe", module], check=True, timeout=60)


def test_programs_pass_an_older_verifier() -> None:
    """Every program, with its optional parts, loads under the verifier of 6.1."""
    parts = ("policy", "host_policy", "events", "trace", "strict", "ipsec", "hears_ipsec")
    machine = Machine(changes={f"config_{part}": 1 for part in parts}).load()
    assert set(machine.programs) >= set(PROGRAMS)
    machine.close()


async def test_pods_reach_one_another_without_tcx() -> None:
    """Programs are attached by clsact, and a connection crosses the tunnel without a drop."""
    async with two_nodes() as stage:
        one, two = stage.nodes
        client, far = await one.add_pod("client", 70001), await two.add_pod("far", 70003)
        assert not probes.has_tcx()
        far.serve()
        answer = client.run("tcp", far.address, 8080, 3, 20_000)
        assert answer["names"] == {"far": 3}, answer
        assert await one.drops() == {}
        assert await two.drops() == {}
