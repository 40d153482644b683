"""Change of WireGuard keys on a live mesh: states, what is announced, who waits for whom. Pure.

Every node has its key on the main device (ist_wg0). During a rotation it has a fresh one on a
second device, the detour, as well, so that both sides of every pair can receive under both keys.
Each sender goes over to the detour when a handshake there has proven that the other side is ready.
When all pairs of a node have gone over and its main device is quiet, the fresh key is put onto the
main device too (*promoted*), pairs come back to it as they are proven there, and the detour is
taken down. At no moment does a packet meet a receiver that cannot decrypt it. Rotations are
numbered; a node that hears of a higher number begins its own. Time is an argument. See
docs/adr/0161.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from encryption.peers import PublicKey, public_key

ANNOTATION = "network.isthmus.io/wg-rotation"
DETOUR_PORT = 51872
KEEPALIVE_S = 1  # on devices that must be proven: it makes them shake hands without traffic
LIVE_S = 180.0  # WireGuard itself takes a session for dead after so long
GRACE_S = 15.0  # so long a step waits for nodes that have been silent, too
APART_S = 60.0  # between two rotations that others ask us for


class Phase(Enum):
    """Where a node is."""

    STEADY = "steady"  # one key, one device
    TURNING = "turning"  # a fresh key on the detour; senders go over
    SETTLED = "settled"  # the fresh key is on both devices; senders come back
    ABORTING = "aborting"  # senders come back to the old key


class Event(Enum):
    """What happens to a node."""

    BEGIN = "begin"
    PROMOTE = "promote"
    ABORT = "abort"
    RETIRE = "retire"


TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.STEADY, Event.BEGIN): Phase.TURNING,
    (Phase.TURNING, Event.PROMOTE): Phase.SETTLED,
    (Phase.TURNING, Event.ABORT): Phase.ABORTING,
    (Phase.SETTLED, Event.RETIRE): Phase.STEADY,
    (Phase.ABORTING, Event.RETIRE): Phase.STEADY,
}


def after(phase: Phase, event: Event) -> Phase:
    """The next phase. Raises ``ValueError`` where there is none."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise ValueError(f"the rotation is {phase.value}: it cannot {event.value}") from None


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a node tells the others of itself."""

    number: int = 0
    phase: Phase = Phase.STEADY
    key: PublicKey | None = None  # on the detour; None: the detour is not up

    def text(self) -> str:
        """As the annotation says it."""
        return " ".join([str(self.number), self.phase.value, *([self.key] if self.key else [])])


def parse(text: str) -> Announcement:
    """Raises ``ValueError``."""
    words = text.split()
    if len(words) not in (2, 3) or not (words[0].isascii() and words[0].isdigit()):
        raise ValueError(f"{text[:80]!r} is no announcement of a rotation")
    phase = Phase(words[1])
    if (phase is Phase.STEADY) is not (len(words) == 2):
        raise ValueError(f"{text[:80]!r}: a key belongs to every phase but steady")
    return Announcement(int(words[0]), phase, public_key(words[2]) if len(words) == 3 else None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Another node, as we see it on both devices."""

    name: str
    said: Announcement | None  # None: it knows no rotations, as other implementations
    main_handshake_s: float = 0.0  # Unix time; 0: never
    detour_handshake_s: float = 0.0
    main_quiet: bool = True  # nothing has come by it for a while
    detour_quiet: bool = True

    def is_live(self, now_s: float) -> bool:
        """Whether it has spoken to us lately."""
        return now_s - max(self.main_handshake_s, self.detour_handshake_s) < LIVE_S


@dataclass(frozen=True, slots=True)
class Own:
    """This node."""

    number: int
    phase: Phase
    since_s: float = 0.0  # Unix time when the phase began
    promoted_s: float = 0.0  # Unix time when the main device got its key

    def main_proven(self, pair: Pair) -> bool:
        """A handshake with our present key."""
        return pair.main_handshake_s > self.promoted_s


def uses_detour(own: Own, pair: Pair) -> bool:
    """Which device our packets to that node take; the same facts lead the other side likewise."""
    if own.phase is Phase.STEADY or pair.said is None or pair.said.key is None:
        return False
    detour_proven = pair.detour_handshake_s > 0
    if Phase.TURNING in (own.phase, pair.said.phase):
        return detour_proven
    # Back again: as soon as the main device is proven under the keys it has now.
    if own.phase is Phase.ABORTING and pair.said.phase is not Phase.SETTLED:
        return False
    return detour_proven and not own.main_proven(pair)


def waiting_for(own: Own, pairs: Iterable[Pair], now_s: float) -> list[str]:
    """Why this node cannot take its next step yet, one sentence for each node it waits for."""
    found = []
    for pair in pairs:
        said = pair.said
        if said is None or not (pair.is_live(now_s) or now_s - own.since_s < GRACE_S):
            continue  # other implementations are told at the end; who is gone, when it returns
        why = ""
        if own.phase is Phase.TURNING:
            if said.key is None or said.number < own.number:
                why = "has not begun" if said.number < own.number else "has gone back"
            elif not pair.detour_handshake_s:
                why = "has not shaken hands with the new key"
            elif not pair.main_quiet:
                why = "still sends with the old key"
        elif own.phase in (Phase.SETTLED, Phase.ABORTING) and said.key is not None:
            if said.phase is Phase.TURNING:
                why = "is still turning"
            elif own.phase is Phase.SETTLED and not own.main_proven(pair):
                why = "has not shaken hands with the promoted key"
            elif not pair.detour_quiet:
                why = "still sends by the detour"
        if why:
            found.append(f"node {pair.name} {why}")
    return found


def under_way(pairs: Iterable[Pair], now_s: float) -> str:
    """A node that lives and has not ended its rotation, as a clause; empty: there is none."""
    for pair in pairs:
        if pair.said and pair.said.phase is not Phase.STEADY and pair.is_live(now_s):
            return f"node {pair.name} is {pair.said.phase.value}"
    return ""


def _went_back(own: Own, pair: Pair, now_s: float) -> bool:
    """Nobody ends this rotation while we are turning, but by giving it up."""
    said = pair.said
    if said is None or said.number < own.number:
        return False
    if said.phase is Phase.ABORTING:
        return said.number == own.number
    return said.phase is Phase.STEADY and pair.is_live(now_s)


def next_event(
    own: Own, pairs: Iterable[Pair], now_s: float, last_begun_s: float
) -> tuple[Event, int] | None:
    """The step that is due, with the number of its rotation."""
    known = list(pairs)
    if own.phase is Phase.STEADY:
        asked = [
            p.said.number
            for p in known
            if p.said and p.said.phase is Phase.TURNING and p.said.number > own.number
        ]
        if asked and now_s - last_begun_s >= APART_S:
            return Event.BEGIN, max(asked)
        return None
    if own.phase is Phase.TURNING and any(_went_back(own, p, now_s) for p in known):
        return Event.ABORT, own.number
    if waiting_for(own, known, now_s):
        return None
    return (Event.PROMOTE if own.phase is Phase.TURNING else Event.RETIRE), own.number
