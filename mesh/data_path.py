"""Whether packets reach the nodes of a remote cluster, from probes of a few of them. Pure.

Each round asks some nodes of each cluster through the tunnel. Only rounds in a row decide, so that
neither one lost packet nor one dead node takes a cluster's backends out, and a cluster that comes
back gets its part of new connections in steps (ADR 0122). Rules: docs/modules/mesh.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from model.cluster import ClusterName
from model.node import NodeName

STEPS_PCT = (10, 25, 50)  # of its usual part, while a cluster comes back
# Who has not answered in so many rounds is asked in one of so many.
PATIENCE = 6
SEVERAL = 2  # nodes that must be silent; one that is dead says nothing of its cluster


class PathState(StrEnum):
    """What is known of the way to a cluster."""

    UNKNOWN = "unknown"  # no node has ever answered: nothing is concluded from silence
    UP = "up"
    DOWN = "down"
    RETURNING = "returning"


class Round(StrEnum):
    """What one round says of a cluster."""

    ANSWERED = "answered"  # by half of the asked nodes or more
    MIXED = "mixed"
    SILENT = "silent"  # by nobody, while others were heard
    NO_EVIDENCE = "no evidence"  # nobody asked, or nobody heard from at all


@dataclass(frozen=True, slots=True)
class Probe:
    """One node was asked. ``direct``: it answered outside of the tunnel (not asked: False)."""

    node: NodeName
    answered: bool
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """When a cluster goes down and how it returns."""

    failures: int = 3  # silent rounds in a row
    successes: int = 3  # answered rounds in a row
    return_s: float = 120.0  # from the first step to all of its part; 0: at once


@dataclass(slots=True)
class DataPath:
    """One cluster's state; ``share_pct`` is its part of the connections it would usually get."""

    state: PathState = PathState.UNKNOWN
    step: int = 0
    step_since_s: float = 0.0
    since_s: float = 0.0  # of the state
    silent: int = 0  # rounds in a row
    answered: int = 0  # rounds in a row
    silent_nodes: set[NodeName] = field(default_factory=set)  # of the rounds in a row
    last: Sequence[Probe] = ()
    rounds: int = 0  # in which it was asked

    @property
    def share_pct(self) -> int:
        """0: down; 100: all of it."""
        if self.state is PathState.DOWN:
            return 0
        return STEPS_PCT[self.step] if self.state is PathState.RETURNING else 100

    def sentence(self) -> str:
        """What the latest round saw, with the remedy where there is one."""
        asked, heard = len(self.last), sum(p.answered for p in self.last)
        if not asked:
            return "no node was asked yet"
        text = f"{heard} of {asked} asked nodes answer through the tunnel"
        direct = sum(p.direct for p in self.last if not p.answered)
        if direct:
            return (
                f"{text}, {direct} only outside of it: "
                "let UDP 8472 pass between the nodes of both clusters"
            )
        return text


@dataclass(frozen=True, slots=True)
class Transition:
    """A state or a share has changed."""

    cluster: ClusterName
    before: PathState
    after: PathState
    share_pct: int


class DataPaths:
    """All remote clusters."""

    def __init__(self, rules: Rules, down: Sequence[ClusterName] = (), now_s: float = 0.0) -> None:
        """``down``: clusters that were down when a former life ended."""
        self._rules = rules
        self._paths = {name: DataPath(PathState.DOWN, since_s=now_s) for name in down}

    def __getitem__(self, cluster: ClusterName) -> DataPath:
        return self._paths.get(cluster) or DataPath()

    def __iter__(self) -> Iterator[ClusterName]:
        return iter(self._paths)

    def is_due(self, cluster: ClusterName, turn: int) -> bool:
        """Whether to ask in this round. Who never answers must not cost as much as who does."""
        path = self._paths.get(cluster)
        if path is None or path.state is not PathState.UNKNOWN or path.rounds < PATIENCE:
            return True
        return turn % PATIENCE == 0

    def forget(self, cluster: ClusterName) -> None:
        """No member any more."""
        self._paths.pop(cluster, None)

    def take(
        self,
        now_s: float,
        probes: Mapping[ClusterName, Sequence[Probe]],
        sizes: Mapping[ClusterName, int],
        own: Sequence[Probe] = (),
    ) -> list[Transition]:
        """A round: who was asked of each remote cluster, how many nodes each has, who of ours.

        What has changed. Silence counts only while somebody else was heard, or a silent node
        answered outside of the tunnel: else it is our own network that is down.
        """
        found = []
        heard = {c: any(p.answered for p in asked) for c, asked in probes.items()}
        witnesses = sum(heard.values()) + any(p.answered or p.direct for p in own)
        direct = any(p.direct for asked in probes.values() for p in asked)
        for cluster, asked in probes.items():
            path = self._paths.setdefault(cluster, DataPath(since_s=now_s))
            before = path.state, path.share_pct
            if asked:
                path.last = tuple(asked)
                path.rounds += 1
            verdict = _judged(asked, witnessed=direct or witnesses > 0)
            self._step(path, verdict, asked, sizes.get(cluster, 0), now_s)
            if (path.state, path.share_pct) != before:
                found.append(Transition(cluster, before[0], path.state, path.share_pct))
        return found

    def _step(
        self, path: DataPath, verdict: Round, asked: Sequence[Probe], size: int, now_s: float
    ) -> None:
        if verdict is Round.NO_EVIDENCE:
            return
        _count(path, verdict, asked)
        if path.state is PathState.UNKNOWN:
            if verdict is not Round.SILENT:
                _enter(path, PathState.UP, now_s)
        elif path.state is PathState.DOWN:
            if path.answered >= self._rules.successes:
                returning = self._rules.return_s > 0
                _enter(path, PathState.RETURNING if returning else PathState.UP, now_s)
        elif path.silent >= self._rules.failures and len(path.silent_nodes) >= min(SEVERAL, size):
            _enter(path, PathState.DOWN, now_s)
        elif path.state is PathState.RETURNING:
            self._return(path, verdict, now_s)

    def _return(self, path: DataPath, verdict: Round, now_s: float) -> None:
        """The next step comes after its time, and only over rounds that were all answered."""
        if verdict is not Round.ANSWERED:
            path.step_since_s = now_s
        elif now_s - path.step_since_s >= self._rules.return_s / len(STEPS_PCT):
            path.step_since_s = now_s
            path.step += 1
            if path.step == len(STEPS_PCT):
                _enter(path, PathState.UP, now_s)


def _judged(asked: Sequence[Probe], *, witnessed: bool) -> Round:
    answered = sum(p.answered for p in asked)
    if not asked or (not answered and not witnessed):
        return Round.NO_EVIDENCE
    if not answered:
        return Round.SILENT
    return Round.ANSWERED if 2 * answered >= len(asked) else Round.MIXED


def _count(path: DataPath, verdict: Round, asked: Sequence[Probe]) -> None:
    path.answered = path.answered + 1 if verdict is Round.ANSWERED else 0
    if verdict is Round.SILENT:
        path.silent += 1
        path.silent_nodes.update(p.node for p in asked)
    else:
        path.silent = 0
        path.silent_nodes.clear()


def _enter(path: DataPath, state: PathState, now_s: float) -> None:
    path.state, path.since_s = state, now_s
    path.step, path.step_since_s = 0, now_s
    path.silent = path.answered = 0
    path.silent_nodes.clear()


def rotate(names: Sequence[NodeName], turn: int, count: int) -> list[NodeName]:
    """Whom to ask in a round: others in each, all of them in turn."""
    if len(names) <= count:
        return list(names)
    first = turn * count % len(names)
    return [names[(first + place) % len(names)] for place in range(count)]
