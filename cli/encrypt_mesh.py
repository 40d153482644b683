"""What clusters are set to about encryption, and what their agents say of it. Pure.

Settings and answers in, stances and reports of ``encryption.migration`` out; and the settings of a
stance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from encryption.migration import Kind, Report, Stance

Object = Mapping[str, Any]

# On cilium-config: from which kind to which a migration goes, so that it can be gone on with.
ANNOTATION = "network.isthmus.io/encryption-migration"
_ACCEPTS = "encryption-accepts"
_ENABLE = {Kind.WIREGUARD: "enable-wireguard", Kind.IPSEC: "enable-ipsec"}
KEEPER = "wireguard"  # the container that keeps userspace WireGuard running
SECRET = "cilium-ipsec-keys"


@dataclass(frozen=True, slots=True)
class Route:
    """A migration that is under way, as ``cilium-config`` remembers it."""

    origin: Kind
    target: Kind
    aborting: bool = False

    @property
    def goal(self) -> Kind:
        """Where it goes now."""
        return self.origin if self.aborting else self.target

    def text(self) -> str:
        """As the annotation says it."""
        words = [self.origin.value, self.target.value, *(["aborting"] if self.aborting else [])]
        return " ".join(words)


def parse_route(text: str) -> Route | None:
    """Empty: none. Raises ``ValueError``."""
    words = text.split()
    if not words:
        return None
    if len(words) not in (2, 3) or words[2:] not in ([], ["aborting"]):
        raise ValueError(f"annotation {ANNOTATION} is {text!r}: remove it")
    return Route(Kind(words[0]), Kind(words[1]), len(words) == 3)


@dataclass(slots=True)
class Member:
    """One cluster, as its API server and its agents told it."""

    context: str
    name: str
    config: Mapping[str, str]
    annotations: Mapping[str, str]
    resource_version: str = ""
    nodes: tuple[str, ...] = ()  # Node objects
    answers: dict[str, Object] = field(default_factory=dict)  # by node
    silent: dict[str, str] = field(default_factory=dict)  # by node
    unkept: tuple[str, ...] = ()  # nodes whose agent's pod has no container KEEPER
    secret: bytes | None = None  # of IPsec
    secret_version: str = ""

    @property
    def stance(self) -> Stance:
        """What the settings ask for. Raises ``ValueError``."""
        on = [kind for kind, key in _ENABLE.items() if self.config.get(key) in ("true", "1")]
        if len(on) > 1:
            raise ValueError(f"cluster {self.name}: enable-wireguard and enable-ipsec are both on")
        return Stance(on[0] if on else Kind.OFF, Kind(self.config.get(_ACCEPTS) or "off"))

    @property
    def route(self) -> Route | None:
        """The migration that is under way. Raises ``ValueError``."""
        return parse_route(self.annotations.get(ANNOTATION, ""))


def settings(stance: Stance) -> dict[str, str | None]:
    """Keys of ``cilium-config``; ``None``: the key goes."""
    found: dict[str, str | None] = {
        key: "true" if stance.sends is kind else "false" for kind, key in _ENABLE.items()
    }
    accepts = stance.accepts.value if stance.accepts is not Kind.OFF else None
    return found | {_ACCEPTS: accepts}


def reports(members: Sequence[Member]) -> dict[str, Report]:
    """By CLUSTER/NODE; an agent of an earlier version gives none."""
    return {
        f"{member.name}/{node}": report_of(answer["migration"])
        for member in members
        for node, answer in member.answers.items()
        if "migration" in answer
    }


def report_of(said: Object) -> Report:
    """What one agent answers."""
    sends = {name: Kind(row["sends"]) for name, row in said["nodes"].items()}
    unready: dict[Kind, dict[str, str]] = {}
    for name, row in said["nodes"].items():
        for kind, why in row["unready"].items():
            unready.setdefault(Kind(kind), {})[name] = why
    return Report(Stance(Kind(said["sends"]), Kind(said["accepts"])), sends, unready)


def route(members: Sequence[Member], to: Kind | None, abort: bool) -> Route:
    """Where this call goes. Raises ``ValueError`` with the remedy."""
    known = {member.route for member in members} - {None}
    if len({found and (found.origin, found.target) for found in known}) > 1:
        raise ValueError(f"the clusters are in different migrations: remove {ANNOTATION} of one")
    # A call that was killed between two clusters has told only the first.
    found = max(known, key=lambda r: bool(r and r.aborting), default=None)
    if found is None:
        if abort:
            raise ValueError("no migration is under way: nothing to abort")
        if to is None:
            raise ValueError("no migration is under way: say where to with --to")
        others = sorted({m.stance.sends.value for m in members} - {to.value})
        return Route(Kind(others[0]) if others else to, to)
    if abort:
        return replace(found, aborting=True)
    if to not in (None, found.goal):
        raise ValueError(
            f"a migration from {found.origin.value} to {found.target.value} is "
            f"{'being taken back' if found.aborting else 'under way'}: let it end with "
            f"--to {found.goal.value}{'' if found.aborting else ', or take it back with --abort'}"
        )
    return found


def away(members: Sequence[Member]) -> Iterator[str]:
    """Nodes that do not answer."""
    for member in members:
        for node, why in sorted(member.silent.items()):
            yield (
                f"node {member.name}/{node} is away ({why}): bring it back, or delete its Node "
                "object"
            )


def refusal(reasons: Sequence[str]) -> str:
    """For a person: nothing was changed, and why."""
    return "nothing was begun:\n" + "\n".join(f"  {line}" for line in reasons)


def obstacles(members: Sequence[Member], target: Kind) -> Iterator[str]:
    """What must be changed by hand before a mesh can go to another kind."""
    for member in members:
        config = member.config
        if target is Kind.OFF and config.get("enable-encryption-strict-mode") == "true":
            yield (
                f"cluster {member.name}: enable-encryption-strict-mode forbids clear text: set it "
                "to false and restart the agents"
            )
        if target is Kind.IPSEC and config.get("encrypt-node") == "true":
            yield (
                f"cluster {member.name}: encrypt-node is true, and IPsec encrypts what pods send "
                "only: set it to false and restart the agents"
            )
        if target is Kind.IPSEC and member.secret is None:
            yield f"cluster {member.name} has no secret {SECRET}: docs/ipsec.md says how to make it"
        for node, answer in member.answers.items():
            phase = answer.get("rotation", {}).get("phase", "steady")
            if phase != "steady":
                yield f"node {member.name}/{node} changes its key ({phase}): wait for its end"
    if target is Kind.IPSEC and len({m.secret for m in members if m.secret is not None}) > 1:
        yield f"the clusters' secrets {SECRET} differ: write the same into all of them"


def unkept(members: Sequence[Member], step: Stance) -> Iterator[Member]:
    """Clusters whose agents' pods lack what userspace WireGuard needs, and will need it."""
    for member in members:
        if Kind.WIREGUARD in step.kinds and member.unkept:
            yield member
