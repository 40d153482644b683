"""Rotation over time: at every moment everybody who talks accepts everybody they talk to.

The world below does what clusters do, at its own pace: files reach processes late and one by one, a
store reads its authorities only when it starts, a command dies between any two steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from certs import rotation
from certs.profiles import ADMIN_SECRET, LOCAL_SECRET, REMOTE_SECRET, SERVER_SECRET
from certs.rotation import Loaded, Member, Stored

SECRETS = frozenset({SERVER_SECRET, ADMIN_SECRET, REMOTE_SECRET, LOCAL_SECRET})
LIFE = timedelta(days=90)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Process:
    """What it holds in memory, or reads from its files at each connection."""

    trust: frozenset[str]
    issuer: str


@dataclass
class Cluster:
    member: Member
    store: Process
    admin: Process
    agents: list[Process]
    told_issuer: str  # the store's certificate when it was told to start
    told_trust: frozenset[str]
    starting: bool = False
    silent: bool = False  # an agent does not answer
    made: int = 0
    peers: set[str] = field(default_factory=set)
    guest: Process | None = None  # an agent of a cluster that was joined by a token
    guest_files: Process | None = None

    def stored(self, secret: str) -> Process:
        found = self.member.secrets[secret]
        return Process(found.trust, found.issuer)

    def seen(self) -> Member:
        secrets = self.member.secrets
        stored = secrets[SERVER_SECRET]
        store = Loaded(
            stored.trust if stored.trust == self.told_trust else frozenset(),
            frozenset({self.told_issuer, stored.issuer}),
        )
        clients = Loaded(
            frozenset.intersection(*(a.trust for a in self.agents)),
            frozenset(a.issuer for a in self.agents),
        )
        return replace(
            self.member,
            store=None if self.starting else store,
            clients=None if self.silent else clients,
        )

    def set(self, secret: str, **what: object) -> None:
        known = self.member.secrets
        changed = replace(known[secret], **what)  # type: ignore[arg-type]
        self.member = replace(self.member, secrets={**known, secret: changed})


def world(links: list[set[int]], shared: bool) -> dict[str, Cluster]:
    """Clusters that read each other along the links, their certificates a month old."""
    authority = ["k0" if shared else f"k{n}" for n in range(3)]
    found = {}
    for n in range(3):
        peers = {m for link in links if n in link for m in link}
        wide = frozenset({authority[n], *(authority[m] for m in peers)})
        secrets = {
            s: Stored(
                authority[n],
                wide if s in (SERVER_SECRET, REMOTE_SECRET) else frozenset({authority[n]}),
                START - timedelta(days=30),
                START - timedelta(days=30) + LIFE,
            )
            for s in SECRETS
        }
        member = Member(f"c{n}", authority[n], secrets, wanted=SECRETS)
        found[member.name] = Cluster(
            member,
            Process(wide, authority[n]),
            Process(frozenset({authority[n]}), authority[n]),
            [Process(wide, authority[n]) for _ in range(2)],
            authority[n],
            wide,
            peers={f"c{m}" for m in peers} | {member.name},
        )
    return found


def accepted(clusters: dict[str, Cluster]) -> None:
    """Nobody would be refused if all connected now."""
    for reader, served in product(clusters.values(), repeat=2):
        if served.member.name not in reader.peers:
            continue
        for agent in reader.agents:
            assert served.store.issuer in agent.trust
            assert agent.issuer in served.store.trust
    for one in clusters.values():
        assert one.store.issuer in one.admin.trust
        assert one.admin.issuer in one.store.trust
        if one.guest is not None:
            assert one.store.issuer in one.guest.trust
            assert one.guest.issuer in one.store.trust


def carry_out(clusters: dict[str, Cluster], step: rotation.Step, now: datetime) -> None:
    one = clusters[step.member]
    match step:
        case rotation.Trust(_, secret, authorities):
            one.set(secret, trust=authorities)
        case rotation.Issue(_, secret, _):
            one.set(secret, issuer=one.member.authority, issued=now, expires=now + LIFE)
        case rotation.Promote():
            former = one.member.former | {one.member.authority}
            one.member = replace(one.member, authority=one.member.next, next="", former=former)
        case rotation.Forget():
            one.member = replace(one.member, former=frozenset())
        case rotation.Restart():
            stored = one.stored(SERVER_SECRET)
            one.told_issuer, one.told_trust = stored.issuer, stored.trust
            one.starting = True


def prepare(one: Cluster) -> None:
    if not one.member.next and not one.member.former:
        one.made += 1
        one.member = replace(one.member, next=f"{one.member.name}-{one.made}")


def spread(one: Cluster, draw: Callable[[], bool]) -> None:
    """Some files arrive; a store that was starting answers."""
    if one.starting and draw():
        one.store, one.admin = one.stored(SERVER_SECRET), one.stored(ADMIN_SECRET)
        one.starting = False
    one.silent = not draw()
    if draw():
        one.store.issuer = one.stored(SERVER_SECRET).issuer  # read at each handshake
    if draw():
        one.admin = one.stored(ADMIN_SECRET)
    for n, agent in enumerate(one.agents):
        if draw():
            agent.trust = one.stored(REMOTE_SECRET).trust
        if draw():
            one.agents[n] = Process(agent.trust, one.stored(REMOTE_SECRET).issuer)


def tell(one: Cluster, now: datetime, draw: Callable[[], bool]) -> None:
    """Somebody exchanges certificates by a token as soon as it is possible, or later; the other
    cluster's agent reads what it was told within the time it has."""
    if one.guest is None:
        return
    told = one.member.joined["guest"]
    late = told.at is not None and now >= told.at + rotation.PEER_DELAY
    if one.guest_files is not None and (late or draw()):
        one.guest, one.guest_files = one.guest_files, None
    following, seen = one.member.next, one.seen()
    known = seen.store is not None and following in seen.store.trust
    if following and known and following not in told.authorities and draw():
        trust = frozenset({one.member.authority, following})
        one.guest_files = Process(trust, following)
        joined = {"guest": rotation.Told(trust, now)}
        one.member = replace(one.member, joined=joined)


def members(clusters: dict[str, Cluster]) -> list[Member]:
    return [c.seen() for c in clusters.values()]


LINKS = st.sampled_from([[{0, 1}], [{0, 1}, {1, 2}], [{0, 1}, {1, 2}, {0, 2}]])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32), LINKS, st.booleans(), st.integers(1, 2))
def test_nobody_is_refused_while_everything_rotates(
    seed: int, links: list[set[int]], shared: bool, rounds: int
) -> None:
    """Whatever arrives when, wherever a command dies; at the end no old authority is left."""
    random = Random(seed)
    clusters = world(links, shared)
    before = {c.member.authority for c in clusters.values()}
    now = START
    for one in clusters.values():
        if random.random() < 0.3:
            held = frozenset({one.member.authority})
            one.guest = Process(held, one.member.authority)
            joined = {"guest": rotation.Told()}  # joined by a version that kept no record
            one.member = replace(one.member, joined=joined)
    accepted(clusters)
    rotating = random.sample(sorted(clusters), random.randint(1, 3))
    for _ in range(rounds):
        for name in rotating:
            prepare(clusters[name])
        for tick in range(120):
            hurried = tick >= 60  # now everything arrives
            draw = (lambda: True) if hurried else (lambda: random.random() < 0.3)
            now += timedelta(hours=random.randint(0, 12))
            for one in clusters.values():
                tell(one, now, draw)
            plan = rotation.plan(members(clusters), now)
            if plan.done:
                break
            for step in plan.steps:
                if draw():
                    carry_out(clusters, step, now)
                    accepted(clusters)
                for one in clusters.values():
                    spread(one, draw)
                    accepted(clusters)
            for one in clusters.values():
                spread(one, draw)
                accepted(clusters)
        else:
            raise AssertionError(f"never done: {plan}")
    still = {c.member.authority for c in clusters.values()}
    for one in clusters.values():
        known = frozenset().union(*(s.trust for s in one.member.secrets.values()))
        assert not (known | one.store.trust) & (before - still)
        assert not one.member.former
        for name in one.peers:
            assert clusters[name].member.authority in one.member.secrets[SERVER_SECRET].trust
            assert clusters[name].member.authority in one.member.secrets[REMOTE_SECRET].trust
        strangers = {c.member.authority for n, c in clusters.items() if n not in one.peers}
        if not shared:
            assert not known & strangers


@given(st.integers(0, 89))
def test_certificates_are_renewed_in_their_last_third(day: int) -> None:
    """Neither earlier nor later, and by the authority that signed them."""
    clusters = world([{0, 1}], False)
    now = START - timedelta(days=30) + timedelta(days=day)
    steps = rotation.plan(members(clusters), now).steps
    assert all(isinstance(s, rotation.Issue) for s in steps)
    assert len(steps) == (12 if day >= 60 else 0)


def test_a_joined_cluster_is_waited_for() -> None:
    """Until it has been told, and until its agents have had time; each is said."""
    clusters = world([{0, 1}], False)
    one = clusters["c0"]
    prepare(one)
    one.member = replace(one.member, joined={"far": rotation.Told()})
    for _ in range(20):
        plan = rotation.plan(members(clusters), START)
        for step in plan.steps:
            assert not isinstance(step, rotation.Promote)
            carry_out(clusters, step, START)
        for each in clusters.values():
            spread(each, lambda: True)
    (waiting,) = rotation.plan(members(clusters), START).waiting
    assert "grant --name far` in cluster c0" in waiting
    told = rotation.Told(frozenset({"k0", "c0-1"}), START)
    one.member = replace(one.member, joined={"far": told})
    (waiting,) = rotation.plan(members(clusters), START).waiting
    assert "agents of cluster far have until 00:02:00 UTC" in waiting
    later = START + rotation.PEER_DELAY
    assert rotation.plan(members(clusters), later).steps == (rotation.Promote("c0"),)
