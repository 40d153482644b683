"""What to do next so that certificates are as wanted and nobody is ever refused. Pure.

Nothing here remembers a phase: every call looks at what is stored and at what running processes
have been seen to use, and answers with the steps that are safe at this moment. Carrying out some of
them, or none, or dying half-way, leads to a state from which the next call goes on.

The one rule: a certificate is issued by an authority only when everybody who will meet it has
loaded that authority, and an authority leaves a trust bundle only when nobody can still present
anything signed by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from certs.profiles import REMOTE_SECRET, SERVER_SECRET

Authority: TypeAlias = str  # subject key identifier
RENEW_SHARE = 3  # the last third of a certificate's life is for renewing it
# A kubelet brings a changed Secret to its pods within its period (1 min) and its cache's (1 min).
PEER_DELAY = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Stored:
    """One Secret: a certificate and the authorities beside it."""

    issuer: Authority = ""  # empty: there is no usable certificate
    trust: frozenset[Authority] = frozenset()
    issued: datetime | None = None
    expires: datetime | None = None
    as_wanted: bool = True  # subject and names are those of its profile


@dataclass(frozen=True, slots=True)
class Loaded:
    """What running processes use, all of one kind in a cluster together."""

    trust: frozenset[Authority]  # every one of them accepts these
    issuers: frozenset[Authority]  # one of them may present a certificate of these


@dataclass(frozen=True, slots=True)
class Told:
    """What a cluster that was joined by a token, and is not seen from here, was last told."""

    authorities: frozenset[Authority] = frozenset()  # it trusts all; the newest signed for it
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A cluster of the mesh."""

    name: str
    authority: Authority  # signs
    secrets: Mapping[str, Stored]
    next: Authority = ""  # made, not yet signing
    former: frozenset[Authority] = frozenset()  # signed until lately
    store: Loaded | None = None  # None: not known, for example while it starts
    clients: Loaded | None = None
    wanted: frozenset[str] = field(default=frozenset())  # secrets that must exist
    joined: Mapping[str, Told] = field(default_factory=dict)  # by cluster

    @property
    def authorities(self) -> frozenset[Authority]:
        """All that are this cluster's own."""
        return self.former | {a for a in (self.authority, self.next) if a}


@dataclass(frozen=True, slots=True)
class Trust:
    """Let the bundle of a Secret hold exactly these."""

    member: str
    secret: str
    authorities: frozenset[Authority]


@dataclass(frozen=True, slots=True)
class Restart:
    """Start a store anew: it reads the authorities that it trusts only then."""

    member: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Let the next authority sign."""

    member: str


@dataclass(frozen=True, slots=True)
class Issue:
    """Make a certificate, signed by the member's authority."""

    member: str
    secret: str
    why: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The member's former authorities are of no use any more."""

    member: str


Step: TypeAlias = Trust | Restart | Promote | Issue | Forget


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps that are safe now, and what has to come about before there are more."""

    steps: tuple[Step, ...]
    waiting: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Everything is as wanted."""
        return not self.steps and not self.waiting


def plan(
    members: Sequence[Member],
    now: datetime,
    renew_before: Mapping[str, datetime] | None = None,
    peer_delay: timedelta = PEER_DELAY,
) -> Plan:
    """The next steps. ``renew_before``: by member, renew also whatever was issued earlier.

    ``peer_delay``: how long agents of a cluster that was joined by a token may take to use what it
    was told.
    """
    asked = renew_before or {}
    steps: list[Step] = []
    waiting: list[str] = []
    for member in members:
        trust = _trust_steps(member, members)
        steps += trust
        _store_steps(member, bool(trust), steps, waiting)
        if member.clients is None:
            waiting.append(f"{member.name}: an agent does not say which certificates it uses")
        if member.next:
            missing = _unaware(member, member.next, members) or _untold(member, now, peer_delay)
            if not missing:
                steps.append(Promote(member.name))
            waiting += missing
            continue
        for name in sorted(member.wanted | member.secrets.keys()):
            why = due(member, name, now, asked.get(member.name))
            if not why:
                continue
            missing = _unaware(member, member.authority, members)
            if not missing:
                steps.append(Issue(member.name, name, why))
            waiting += missing
    if not steps and not waiting:
        steps += [Restart(m.name) for m in members if _old_server_certificate(m)]
    if not steps and not waiting:
        waiting = _late(members)
    if not steps and not waiting:
        steps += [Forget(m.name) for m in members if m.former]
    return Plan(tuple(steps), tuple(dict.fromkeys(waiting)))


def due(member: Member, secret: str, now: datetime, renew_before: datetime | None = None) -> str:
    """Why a certificate has to be issued; empty: it need not."""
    stored = member.secrets.get(secret, Stored())
    if not stored.issuer or stored.issued is None or stored.expires is None:
        return "there is none"
    if stored.issuer != member.authority:
        return "it is of another authority"
    if not stored.as_wanted:
        return "its names are not those wanted"
    if now >= renewal(stored.issued, stored.expires):
        return f"it expires on {stored.expires:%Y-%m-%d}"
    if renew_before is not None and stored.issued < renew_before:
        return "asked for"
    return ""


def renewal(issued: datetime, expires: datetime) -> datetime:
    """From when on a certificate is to be renewed."""
    life: timedelta = expires - issued
    return expires - life / RENEW_SHARE


def wanted_trust(member: Member, secret: str, members: Sequence[Member]) -> frozenset[Authority]:
    """What a bundle has to hold; authorities that are nobody's here stay in it."""
    trust = member.secrets[secret].trust
    known = frozenset[Authority]().union(*(m.authorities for m in members))
    found = trust - known
    for other in members:
        if _meets(member, secret, other):
            signing = _signing(other, clients=secret == SERVER_SECRET)
            found |= (signing - other.former) | (signing & trust)  # what has left does not return
    # The restart that follows a narrower bundle is to find the new certificate, too.
    stored = member.secrets.get(SERVER_SECRET, Stored())
    if secret == SERVER_SECRET and stored.issuer != member.authority:
        found |= trust & member.former
    return found


def _meets(member: Member, secret: str, other: Member) -> bool:
    """Who is in the bundle already is met; a rotation joins nobody."""
    return other is member or bool(member.secrets[secret].trust & other.authorities)


def _signing(member: Member, clients: bool) -> frozenset[Authority]:
    """Whose signature the clients, or the store, of a member may show now or next."""
    secrets = [s for n, s in member.secrets.items() if (n != SERVER_SECRET) == clients]
    found = {member.authority, member.next, *(s.issuer for s in secrets)}
    loaded = member.clients if clients else member.store
    return (frozenset(found) | (loaded.issuers if loaded else member.former)) - {""}


def _trust_steps(member: Member, members: Sequence[Member]) -> list[Step]:
    found: list[Step] = []
    for name in sorted(member.secrets):
        if member.store is None and name != REMOTE_SECRET:
            continue  # it is reading them
        wanted = wanted_trust(member, name, members)
        if wanted != member.secrets[name].trust:
            found.append(Trust(member.name, name, wanted))
    return found


def _store_steps(member: Member, changing: bool, steps: list[Step], waiting: list[str]) -> None:
    if member.store is None:
        waiting.append(f"{member.name}: its mesh store is not ready")
    elif (
        not changing
        and SERVER_SECRET in member.secrets
        and member.store.trust != member.secrets[SERVER_SECRET].trust
    ):
        steps.append(Restart(member.name))


def _unaware(member: Member, authority: Authority, members: Sequence[Member]) -> list[str]:
    """Who would refuse a certificate of this authority, had ``member`` one."""
    found = []
    for other in members:
        for name in sorted(other.secrets):
            if not _meets(other, name, member):
                continue
            # The publisher's certificate is read when its pod starts, together with the store's.
            agents = name == REMOTE_SECRET
            loaded = other.clients if agents else other.store
            if loaded is None or authority not in loaded.trust & other.secrets[name].trust:
                whom = "agents" if agents else "mesh store"
                found.append(f"{other.name}: the {whom} must learn the new authority first")
    return found


def _untold(member: Member, now: datetime, delay: timedelta) -> list[str]:
    """Clusters joined by a token that would refuse the next authority, or be refused."""
    found = []
    for name, told in sorted(member.joined.items()):
        if told.at is None or member.next not in told.authorities:
            found.append(
                f"{member.name}: cluster {name}, joined by a token, must learn the new authority: "
                f"run `isthmus clustermesh grant --name {name}` in cluster {member.name} and "
                f"`isthmus clustermesh join --replace TOKEN` in cluster {name}"
            )
        elif now < told.at + delay:
            found.append(
                f"{member.name}: agents of cluster {name} have until {told.at + delay:%H:%M:%S} "
                "UTC to read what it was told"
            )
    return found


def _old_server_certificate(member: Member) -> bool:
    """The store may still present a former one: its files may not have arrived."""
    stored = member.secrets.get(SERVER_SECRET, Stored())
    return member.store is not None and bool(member.store.issuers - {stored.issuer})


def _late(members: Sequence[Member]) -> list[str]:
    """Certificates that are stored and not yet in use everywhere."""
    return [
        f"{member.name}: an agent still uses a certificate of a former authority"
        for member in members
        if member.clients is not None
        and member.clients.issuers - {s.issuer for s in member.secrets.values()}
    ]
