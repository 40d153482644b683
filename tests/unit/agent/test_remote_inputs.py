"""Last words of remote clusters: whose they are, and when they go."""

import asyncio
from pathlib import Path

from agent.mesh_state import MeshState
from agent.remote_inputs import RemoteInputs
from kvstore.connection import State
from kvstore.status import RemoteStatus
from model.address import host_prefix, parse_address, parse_prefix
from model.cluster import ClusterConfig, ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress, IpcacheEntry
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import Selection
from reconcile.tasks import TaskGroup
from wire.etcd import keys

BETA = ClusterName("beta")
LEFT = host_prefix(parse_address("10.2.0.5"))
NEW = host_prefix(parse_address("10.2.0.6"))


class Life:
    """One life of an agent with what it finds and is told."""

    def __init__(self, directory: Path, number: int = 2, *, restored: bool = False) -> None:
        self.mesh = MeshState(ClusterName("alpha"), NodeName("n1"), Selection.RANDOM)
        self.inputs = RemoteInputs(self.mesh, directory / "ids.json")
        self.status = RemoteStatus(BETA)
        self.number = number
        self.inputs.status = {BETA: self.status}.get
        if restored:
            rows = {
                LEFT: IpcacheEntry(NumericIdentity(131400), cluster_id=ClusterId(2)),
                host_prefix(parse_address("10.1.0.9")): IpcacheEntry(NumericIdentity(65800)),
            }
            self.inputs.restore(rows.items(), ())

    def speak(self) -> None:
        """The cluster announces itself and lists everything: one address."""
        self.status.config = ClusterConfig(ClusterId(self.number))
        self.status.state = State.CONFIGURED
        value = EndpointAddress(
            parse_address("192.0.2.9"), NumericIdentity((self.number << 16) + 300)
        )
        host = NodeAddress(INTERNAL_IP, parse_address("192.0.2.9"))
        pods = parse_prefix("10.2.0.0/24")
        node = Node(BETA, NodeName("b1"), ClusterId(self.number), (host,), (pods,))
        self.inputs.on_changes(BETA, keys.NODES, [(node.name, node)])
        self.inputs.on_changes(BETA, keys.IP, [(NEW, value)])
        for resource in keys.REQUIRED:
            self.status.synced.add(resource)
            self.inputs.on_synced(BETA, resource)

    def known(self) -> set[str]:
        rows = (str(p.network_address) for p, _ in self.mesh.ipcache.items() if p.prefixlen == 32)
        return {text for text in rows if text != "192.0.2.9"}


def test_they_stay_until_the_cluster_has_listed_everything(tmp_path: Path) -> None:
    """A silent member keeps its rows; the listing replaces them. Rows of our own cluster are no
    last words: our own inputs are listed before anything is removed."""
    Life(tmp_path).speak()
    life = Life(tmp_path, restored=True)
    life.inputs.configured([BETA])
    assert life.known() == {"10.2.0.5"}
    life.speak()
    assert life.known() == {"10.2.0.6"}


async def test_who_waits_for_clusters_is_woken(tmp_path: Path) -> None:
    """By each whole listing, and when a cluster leaves."""
    life = Life(tmp_path)
    for happens in (life.speak, lambda: life.inputs.on_removed(BETA)):
        async with TaskGroup() as tasks:
            waiting = tasks.create_task(life.inputs.heard())
            await asyncio.sleep(0)
            assert not waiting.done()
            happens()


def test_they_go_with_a_cluster_that_is_no_member(tmp_path: Path) -> None:
    """Whether it left while we were away, leaves now, or was never known by name."""
    Life(tmp_path).speak()
    life = Life(tmp_path, restored=True)
    life.inputs.configured([])
    assert life.known() == set()
    life = Life(tmp_path, restored=True)
    life.inputs.configured([BETA])
    life.inputs.on_removed(BETA)
    assert life.known() == set()
    stranger = Life(tmp_path / "elsewhere", restored=True)
    stranger.inputs.configured([BETA])
    assert stranger.known() == set()


def test_a_cluster_that_comes_back_with_another_id(tmp_path: Path) -> None:
    """What it left under the old one goes when it speaks under the new one."""
    Life(tmp_path).speak()
    life = Life(tmp_path, number=5, restored=True)
    life.inputs.configured([BETA])
    assert life.known() == {"10.2.0.5"}
    life.speak()
    assert life.known() == {"10.2.0.6"}


def test_a_broken_file_is_no_obstacle(tmp_path: Path) -> None:
    """Then nobody is known by name, and the last words go."""
    (tmp_path / "ids.json").write_text("{")
    life = Life(tmp_path, restored=True)
    life.inputs.configured([BETA])
    assert life.known() == set()


def test_a_line_that_a_kill_has_cut_off_costs_only_itself(tmp_path: Path) -> None:
    """Numbers are appended as clusters speak: what was written before and after a torn line
    counts, and the last word about a cluster."""
    Life(tmp_path, number=3).speak()
    with (tmp_path / "ids.json").open("ab") as file:
        file.write(b'\n{"gamma":')
    Life(tmp_path, number=2).speak()
    later = Life(tmp_path, restored=True)
    later.inputs.configured([BETA])
    assert later.known() == {"10.2.0.5"}


def test_the_directory_is_made(tmp_path: Path) -> None:
    """By the first cluster that speaks."""
    Life(tmp_path / "state", number=2).speak()
    later = Life(tmp_path / "state", restored=True)
    later.inputs.configured([BETA])
    assert later.known() == {"10.2.0.5"}


def test_each_lie_of_one_message_counts(tmp_path: Path) -> None:
    """A record that is replaced, or deleted, in the message that brings it has been said."""
    life = Life(tmp_path)
    life.speak()
    host = parse_address("192.0.2.9")
    lies = [EndpointAddress(host, NumericIdentity(n)) for n in (7, 104)]
    honest = EndpointAddress(host, NumericIdentity((2 << 16) + 300))
    changes = [(NEW, lies[0]), (NEW, None), (NEW, lies[1]), (NEW, honest)]
    life.inputs.on_changes(BETA, keys.IP, changes)
    assert life.mesh.violations(BETA)["reserved-identity"].total == 2
    assert life.known() == {str(NEW.network_address)}
