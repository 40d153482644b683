"""Rotation of keys: what is announced, the states, and a mesh of nodes that rotate in any order."""

import base64
import random
from dataclasses import dataclass, field, replace

import pytest

from encryption import rotation
from encryption.peers import PublicKey
from encryption.rotation import (
    APART_S,
    GRACE_S,
    TRANSITIONS,
    Announcement,
    Event,
    Own,
    Pair,
    Phase,
)

KEY = PublicKey(base64.b64encode(bytes([7]) * 32).decode())


@pytest.mark.parametrize(
    "said",
    [Announcement(), Announcement(3, Phase.TURNING, KEY), Announcement(4, Phase.SETTLED, KEY)],
)
def test_announcement_is_read_as_written(said: Announcement) -> None:
    """And nothing else is."""
    assert rotation.parse(said.text()) == said


@pytest.mark.parametrize(
    "text",
    ["", "1", "x steady", "1 whirling", "1 steady " + KEY, "1 turning", "1 turning x", "-1 steady"],
)
def test_other_text_is_refused(text: str) -> None:
    """Whole."""
    with pytest.raises(ValueError, match=r"."):
        rotation.parse(text)


def test_every_phase_leads_back_to_steady() -> None:
    """And what is not in the table is said."""
    for phase in Phase:
        seen = {phase}
        while Phase.STEADY not in seen - {phase} and phase is not Phase.STEADY:
            seen |= {to for (at, _), to in TRANSITIONS.items() if at in seen}
            assert len(seen) <= len(Phase)
    with pytest.raises(ValueError, match="the rotation is steady: it cannot abort"):
        rotation.after(Phase.STEADY, Event.ABORT)


def test_who_is_waited_for_is_named() -> None:
    """Those that live and have not followed; not other implementations, not who is long gone."""
    own = Own(2, Phase.TURNING, since_s=1000.0)
    ready = Pair("c/ready", Announcement(2, Phase.TURNING, KEY), 1000, 1001)
    pairs = [
        ready,
        Pair("c/late", Announcement(1), 1000),
        Pair("c/shy", Announcement(2, Phase.TURNING, KEY), 1000, 0),
        replace(ready, name="c/loud", main_quiet=False),
        Pair("c/foreign", None, 1000),
        Pair("c/gone", Announcement(1), 500),
    ]
    said = rotation.waiting_for(own, pairs, 1000 + GRACE_S + 1)
    assert said == [
        "node c/late has not begun",
        "node c/shy has not shaken hands with the new key",
        "node c/loud still sends with the old key",
    ]
    assert rotation.next_event(own, pairs, 1100, 0) is None
    assert rotation.next_event(own, pairs[:1], 1100, 0) == (Event.PROMOTE, 2)


def test_no_second_rotation_beside_one_that_lives() -> None:
    """Begun by hand on a node that has not heard of the first."""
    turning = Announcement(3, Phase.TURNING, KEY)
    lives, gone = (
        Pair(name, turning, handshake) for name, handshake in (("a/x", 990.0), ("a/y", 1.0))
    )
    assert rotation.under_way([gone, Pair("a/z", Announcement(3), 990.0)], 1000.0) == ""
    assert rotation.under_way([gone, lives], 1000.0) == "node a/x is turning"


def test_others_cannot_make_us_rotate_all_the_time() -> None:
    """A higher number begins ours, but not within a minute of the last."""
    pairs = [Pair("c/n", Announcement(9, Phase.TURNING, KEY), 1000)]
    own = Own(2, Phase.STEADY)
    assert rotation.next_event(own, pairs, 1000, 1000 - APART_S + 1) is None
    assert rotation.next_event(own, pairs, 1000, 1000 - APART_S) == (Event.BEGIN, 9)
    assert rotation.next_event(Own(9, Phase.STEADY), pairs, 1000, 0) is None


@dataclass
class Node:
    """A node of the simulated mesh: two devices with a key each, and peers on them."""

    name: int
    own: Own = field(default_factory=lambda: Own(0, Phase.STEADY))
    main: int = 0  # keys by number
    detour: int = -1
    begun_s: float = -1000.0
    heard: dict[int, "Said"] = field(default_factory=dict)
    shaken: dict[tuple[str, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    main: int
    detour: int
    number: int
    phase: Phase


class World:
    """Announcements arrive late and in any order of nodes; hands are shaken now and then."""

    def __init__(self, count: int, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now_s = 1000.0
        self.keys = count
        self.nodes = [Node(n, main=n) for n in range(count)]
        for node in self.nodes:
            self.tell(node, all_of_them=True)
        for a in self.nodes:
            for b in self.nodes:
                if a is not b:
                    a.shaken["main", b.name] = self.now_s

    def tell(self, node: Node, all_of_them: bool = False) -> None:
        said = Said(node.main, node.detour, node.own.number, node.own.phase)
        for other in self.nodes:
            if other is not node and (all_of_them or self.draw.random() < 0.5):
                old = other.heard.get(node.name)
                if old is not None and old.main != said.main:
                    other.shaken.pop(("main", node.name), None)
                if old is not None and old.detour != said.detour:
                    other.shaken.pop(("detour", node.name), None)
                other.heard[node.name] = said

    def can_shake(self, a: Node, b: Node, device: str) -> bool:
        """Both know the key that the other has there now."""
        key_a, key_b = getattr(a, device), getattr(b, device)
        known_a = getattr(b.heard[a.name], device)
        known_b = getattr(a.heard[b.name], device)
        return key_a == known_a and key_b == known_b and -1 not in (key_a, key_b)

    def pair(self, a: Node, b: Node) -> Pair:
        said = a.heard[b.name]
        key = KEY if said.detour >= 0 else None
        # Handshakes of our own kind: every pair is quiet on the device that it does not use.
        there = self.uses(b, a) if b.heard else False
        return Pair(
            str(b.name),
            Announcement(said.number, said.phase, key),
            a.shaken.get(("main", b.name), 0.0),
            a.shaken.get(("detour", b.name), 0.0) if a.detour >= 0 else 0.0,
            main_quiet=there,
            detour_quiet=not there,
        )

    def uses(self, a: Node, b: Node) -> bool:
        said = a.heard[b.name]
        key = KEY if said.detour >= 0 else None
        pair = Pair(
            str(b.name),
            Announcement(said.number, said.phase, key),
            a.shaken.get(("main", b.name), 0.0),
            a.shaken.get(("detour", b.name), 0.0) if a.detour >= 0 else 0.0,
        )
        return rotation.uses_detour(a.own, pair)

    def act(self, node: Node, event: Event, number: int) -> None:
        phase = rotation.after(node.own.phase, event)
        promoted_s = node.own.promoted_s
        if event is Event.BEGIN:
            self.keys += 1
            node.detour, node.begun_s = self.keys, self.now_s
        if event is Event.PROMOTE:
            node.main, promoted_s = node.detour, self.now_s
        if event is Event.RETIRE:
            node.detour = -1
            for key in [k for k in node.shaken if k[0] == "detour"]:
                del node.shaken[key]
        node.own = Own(number, phase, self.now_s, promoted_s)

    def step(self) -> None:
        self.now_s += 0.25
        for node in self.nodes:
            if self.draw.random() < 0.4:
                self.tell(node)
        for a in self.nodes:
            for b in self.nodes:
                if a.name < b.name and self.draw.random() < 0.5:
                    for device in ("main", "detour"):
                        if self.can_shake(a, b, device):
                            a.shaken[device, b.name] = b.shaken[device, a.name] = self.now_s
        for a in self.nodes:
            for b in self.nodes:
                if a is not b:
                    self.check_packet(a, b)
        for node in self.nodes:
            if self.draw.random() < 0.3:
                pairs = [self.pair(node, b) for b in self.nodes if b is not node]
                due = rotation.next_event(node.own, pairs, self.now_s, node.begun_s)
                if due is not None:
                    self.act(node, *due)

    def check_packet(self, a: Node, b: Node) -> None:
        """What a sends now is encrypted in a session that b has and can still read."""
        device = "detour" if self.uses(a, b) else "main"
        if device == "detour":
            assert a.detour >= 0
            assert b.detour >= 0, f"{a.name} sends {b.name} by a detour that is down"
            assert ("detour", a.name) in b.shaken
        else:
            # Under a key that was promoted since, the device of the sender has no session left.
            shaken_s = a.shaken.get(("main", b.name), 0.0)
            assert shaken_s > a.own.promoted_s or a.own.promoted_s == 0.0, (a, b)


@pytest.mark.parametrize("seed", range(30))
def test_mesh_rotates_and_no_packet_is_lost(seed: int) -> None:
    """One node begins; every node ends with another key, whatever is late."""
    world = World(5, seed)
    world.act(world.nodes[seed % 5], Event.BEGIN, 1)
    for _ in range(2000):
        world.step()
        if all(n.own.number == 1 and n.own.phase is Phase.STEADY for n in world.nodes):
            break
    else:
        raise AssertionError([n.own for n in world.nodes])
    assert all(n.main != n.name and n.detour == -1 for n in world.nodes)


@pytest.mark.parametrize("seed", range(30))
def test_aborted_rotation_ends_steady_and_no_packet_is_lost(seed: int) -> None:
    """Whoever had promoted its key by then keeps the new one; the others have the old one."""
    world = World(5, seed)
    world.act(world.nodes[0], Event.BEGIN, 1)
    aborted = False
    for count in range(3000):
        world.step()
        node = world.nodes[seed % 5]
        if not aborted and count > seed % 8 and node.own.phase is Phase.TURNING:
            world.act(node, Event.ABORT, 1)
            aborted = True
        if aborted and all(n.own.phase is Phase.STEADY for n in world.nodes):
            break
    else:
        raise AssertionError((aborted, [n.own for n in world.nodes]))
    assert world.nodes[seed % 5].main == seed % 5
