"""A simulated mesh that goes from one kind of encryption to another, whatever is late or dies.

Settings reach nodes late, announcements reach others late, agents are away for a while, the caller
is killed between two clusters, and a migration is taken back at any moment. At every moment each
node sends to each other with a kind that the receiver decrypts.
"""

import random
from dataclasses import dataclass, field

import pytest

from encryption import migration
from encryption.migration import Kind, Move, Report, Stance, Wait

OFF, W, I = Kind.OFF, Kind.WIREGUARD, Kind.IPSEC  # noqa: E741
PAIRS = [(a, b) for a in Kind for b in Kind if a is not b]


@dataclass
class Node:
    name: str
    cluster: str
    stance: Stance
    up: bool = True  # the agent; what it left in the kernel goes on
    heard: dict[str, frozenset[Kind]] = field(default_factory=dict)
    shaken: set[tuple[str, Kind]] = field(default_factory=set)


class World:
    def __init__(self, kind: Kind, seed: int) -> None:
        self.draw = random.Random(seed)
        self.settings = {name: Stance(kind) for name in ("c1", "c2", "c3")}
        self.nodes = [
            Node(f"{cluster}/n{n}", cluster, Stance(kind))
            for cluster in self.settings
            for n in (1, 2)
        ]
        for a in self.nodes:
            for b in self.nodes:
                if a is not b:
                    a.heard[b.name] = b.stance.kinds
                    a.shaken |= {(b.name, k) for k in b.stance.kinds}

    def sends(self, a: Node, b: Node) -> Kind:
        return migration.sent_with(a.stance, a.heard[b.name])

    def report(self, a: Node) -> Report:
        others = [b for b in self.nodes if b is not a]
        unready = {
            kind: {b.name: "late" for b in others if (b.name, kind) not in a.shaken}
            for kind in (W, I)
        }
        return Report(a.stance, {b.name: self.sends(a, b) for b in others}, unready)

    def step(self) -> None:
        for a in self.nodes:
            chance = self.draw.random()
            if chance < 0.05:
                a.up = not a.up
            elif a.up and chance < 0.4 and a.stance != self.settings[a.cluster]:
                a.stance = self.settings[a.cluster]  # it has started again
                a.shaken = {s for s in a.shaken if s[1] in a.stance.kinds}
            for b in self.nodes:
                if a is not b and a.up and self.draw.random() < 0.3:
                    a.heard[b.name] = b.stance.kinds
                    a.shaken = {s for s in a.shaken if s[0] != b.name or s[1] in b.stance.kinds}
        for a in self.nodes:
            for b in self.nodes:
                if a.name < b.name and self.draw.random() < 0.4:
                    for kind in a.stance.kinds & b.stance.kinds:
                        if kind in a.heard[b.name] and kind in b.heard[a.name]:
                            a.shaken.add((b.name, kind))
                            b.shaken.add((a.name, kind))

    def check(self, clear: bool) -> None:
        """No packet meets a receiver that cannot read it, and none is in clear text unasked."""
        for a in self.nodes:
            for b in self.nodes:
                if a is b:
                    continue
                kind = self.sends(a, b)
                if kind is OFF:
                    assert clear, (a, b)
                    continue
                assert kind in b.stance.kinds, (a, b)
                assert (b.name, kind) in a.shaken, (a, b)

    def look(self, target: Kind) -> Move | Wait:
        reports = {a.name: self.report(a) for a in self.nodes if a.up}
        return migration.decide(target, self.settings, [a.name for a in self.nodes], reports)

    def go(self, target: Kind, clear: bool, kill: float, rounds: int) -> bool:
        """Whether all is done."""
        for _ in range(rounds):
            self.step()
            self.check(clear)
            found = self.look(target)
            if isinstance(found, Wait):
                if not found.reasons:
                    return True
                continue
            for cluster in found.clusters:
                if self.draw.random() < kill:
                    break  # the caller is killed; the next look is another's
                self.settings[cluster] = found.to
                self.check(clear)
        return False


@pytest.mark.parametrize(("origin", "target"), PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_a_mesh_changes_over_without_a_lost_packet(origin: Kind, target: Kind, seed: int) -> None:
    """From every kind to every other; in the end nobody accepts anything else."""
    world = World(origin, seed)
    assert world.go(target, OFF in (origin, target), kill=0.3, rounds=3000)
    assert {a.stance for a in world.nodes} == {Stance(target)}


@pytest.mark.parametrize(("origin", "target"), PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_taken_back_at_any_moment(origin: Kind, target: Kind, seed: int) -> None:
    """Also when it was nearly done, and when it is then begun again."""
    world = World(origin, seed)
    clear = OFF in (origin, target)
    world.go(target, clear, kill=0.3, rounds=world.draw.randrange(1, 120))
    assert world.go(origin, clear, kill=0.3, rounds=3000)
    assert {a.stance for a in world.nodes} == {Stance(origin)}
    assert world.go(target, clear, kill=0.0, rounds=3000)


@pytest.mark.parametrize("target", [W, I])
def test_nothing_moves_while_a_node_is_away(target: Kind) -> None:
    """And what is said names it."""
    world = World(OFF, 1)
    world.nodes[3].up = False
    found = world.look(target)
    assert isinstance(found, Wait)
    assert any("c2/n2 does not answer: bring it back" in reason for reason in found.reasons)


def test_every_cluster_must_be_named() -> None:
    """A cluster that agents know and the caller does not would be left behind."""
    world = World(OFF, 1)
    del world.settings["c3"]
    world.nodes, gone = world.nodes[:4], world.nodes[4:]
    reports = {
        a.name: Report(a.stance, {**world.report(a).sends, gone[0].name: OFF}) for a in world.nodes
    }
    names = [a.name for a in world.nodes]
    found = migration.decide(W, world.settings, names, reports)
    assert isinstance(found, Wait)
    assert found.reasons == ("cluster c3 is in the mesh, too: name its context with --also",)


@pytest.mark.parametrize("target", list(Kind))
def test_every_stance_leads_to_every_kind(target: Kind) -> None:
    """In at most four steps, and neighbours differ in one thing."""
    for sends in Kind:
        for accepts in Kind:
            if accepts is sends and accepts is not OFF:
                continue
            at, count = Stance(sends, accepts), 0
            while (step := migration.next_stance(at, target)) is not None:
                assert at.sends is step.sends or step.sends in {at.accepts, OFF}
                assert step.sends is at.sends or at.sends in {step.accepts, OFF}
                at, count = step, count + 1
            assert at == Stance(target)
            assert count <= 4
            assert count == migration.distance(Stance(sends, accepts), target)
