"""Claims about addresses → one ipcache. Pure.

A stronger source wins (``model.ipcache.Source``). Between two remote clusters that claim one
address the name decides, so that every node of this cluster takes the same side; within one cluster
the younger pod has the address, and of nodes the one whose name comes last. A peer is heard only
about addresses that its own nodes declare and that are not ours (``mesh.territory``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from mesh.blocks import BLOCK_LENGTH, Blocks, Groups
from mesh.claims import Claims, Said
from mesh.guard import NOBODY, LocalPrefixes
from mesh.problems import Problems, Violation
from mesh.territory import WAITING
from model.address import Address, Prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import IpcacheEntry, Source

_OWN = ClusterId(0)  # this cluster, in every table of the datapath
# Reserved numbers that a workload of a peer can have; all others stand for something of ours.
_FOREIGN: frozenset[int] = frozenset(ReservedIdentity) - {
    ReservedIdentity.HOST,
    ReservedIdentity.KUBE_APISERVER,
}
_UNKNOWN = NumericIdentity(ReservedIdentity.UNKNOWN)
_FIRST_ALLOCATABLE = 256


class Claimant(msgspec.Struct, frozen=True, gc=False):
    """Who makes a claim. ``origin`` tells objects of one source apart."""

    source: Source
    cluster: ClusterName = ClusterName("")
    origin: str = ""

    @property
    def rank(self) -> tuple[Source, ClusterName]:
        """Who is heard first."""
        return self.source, self.cluster


class IpClaim(msgspec.Struct, frozen=True, gc=False):
    """What is claimed; the names are for people."""

    entry: IpcacheEntry
    namespace: str = ""
    pod: str = ""
    born: str = ""  # creation time of the object, RFC 3339: sorts as text


SaidIp = Said[Claimant, IpClaim]


def refusal(
    prefix: Prefix, claimant: Claimant, claim: IpClaim, local: LocalPrefixes
) -> Violation | None:
    """Why a peer's claim is not heard; one of kind ``WAITING`` is no fault of the peer yet."""
    row = claim.entry
    found = local.refuses(claimant.cluster, prefix, row.tunnel_endpoint)
    if found is None and row.identity < _FIRST_ALLOCATABLE and row.identity not in _FOREIGN:
        return Violation(
            "reserved-identity",
            claimant.cluster,
            f"cluster {claimant.cluster} gives {prefix} the identity {row.identity}, "
            "which no workload of a peer can have",
        )
    return found


def shared_pod_cidr(prefix: Prefix, cluster: ClusterName, nodes: Iterable[str]) -> str:
    """Two nodes or more of one cluster have one pod CIDR: what is said of it."""
    first, *others, keeper = sorted(nodes)
    more = f" and {len(others)} more" if others else ""
    return (
        f"pod CIDR {prefix} of node {keeper} of cluster {cluster}, which keeps it, is claimed by "
        f"node {first}{more} as well: give each node a pod CIDR of its own"
    )


def _is_pod_cidr(said: SaidIp) -> bool:
    """Of a peer's claims: whether a node makes it, and not about its own address."""
    return said.owner.origin != "" and said.claim.entry.identity == _UNKNOWN


def decide(
    prefix: Prefix, said: tuple[SaidIp, ...], local: LocalPrefixes
) -> tuple[SaidIp | None, tuple[str, ...], tuple[ClusterName, ...]]:
    """The claim that holds, what is wrong with the others, and whose claims wait for a node."""
    if len(said) == 1:
        only = said[0]
        if (
            only.owner.source is not Source.CLUSTERMESH
            or refusal(prefix, only.owner, only.claim, local) is None
        ):
            return only, (), ()
    sentences: list[str] = []
    heard: list[SaidIp] = []
    waiting: list[ClusterName] = []
    for one in sorted(said, key=lambda s: s.owner.rank):
        claimant = one.owner
        if claimant.source is Source.CLUSTERMESH:
            refused = refusal(prefix, claimant, one.claim, local)
            if refused is not None:
                if refused.kind == WAITING:
                    waiting.append(claimant.cluster)
                else:
                    sentences.append(refused)
                continue
        heard.append(one)
    if not heard:
        return None, tuple(sentences), tuple(waiting)
    first = heard[0].owner
    keeper = f"cluster {first.cluster}" if first.source is Source.CLUSTERMESH else "this cluster"
    equals = [one for one in heard if one.owner.rank == first.rank]
    best = max(equals, key=lambda one: (one.claim.born, one.owner.origin))
    sentences += [
        Violation(
            "other-cluster" if first.source is Source.CLUSTERMESH else "own-address",
            one.owner.cluster,
            f"{prefix} is claimed by cluster {one.owner.cluster} and by {keeper}, which keeps it: "
            "give the clusters pod CIDRs that do not overlap",
        )
        for one in heard
        if one.owner.source is Source.CLUSTERMESH and one.owner.rank != first.rank
    ]
    if first.source is Source.CLUSTERMESH:  # of our own nodes ``mesh.nodes`` speaks
        nodes = [one.claim.pod for one in equals if _is_pod_cidr(one)]
        if len(nodes) > 1:
            shared = shared_pod_cidr(prefix, first.cluster, nodes)
            sentences.append(Violation("shared-pod-cidr", first.cluster, shared))
    return best, tuple(sentences), tuple(waiting)


class Ipcache:
    """The table, kept key by key. ``on_change`` is told every key whose value may differ."""

    def __init__(self, local: LocalPrefixes, on_change: Callable[[Sequence[Prefix]], None]) -> None:
        self._claims: Claims[Prefix, Claimant, IpClaim] = Claims()
        self._local = local
        self._on_change = on_change
        self.problems: Problems[Prefix] = Problems()
        self._noted: set[Prefix] = set()  # keys that are in one of the three tables below
        self._peers = Blocks()  # keys that a peer claims
        self._waiting: Groups[ClusterName] = Groups()
        # Claims behind a node whose own pod prefixes do not lead to them, by that node's address.
        self._astray: Groups[tuple[ClusterName, Address]] = Groups()

    def put(self, prefix: Prefix, claimant: Claimant, claim: IpClaim) -> None:
        """Hear a claim."""
        self.put_all(claimant, ((prefix, claim),))

    def put_all(
        self,
        claimant: Claimant,
        claims: Iterable[tuple[Prefix, IpClaim]],
        judged: bool = False,
    ) -> None:
        """Hear claims; those that follow one another best lie near one another.

        ``judged``: they are a node's, whose record as a whole is believed.
        """
        news = self._claims.put_all(claimant, claims)
        if not news:
            return
        if claimant.source is Source.CLUSTERMESH:
            self._peers.add_all(news)
        self._judge(news, judged)
        self._on_change(news)

    def drop(self, prefix: Prefix, claimant: Claimant) -> None:
        """A claim is withdrawn."""
        if self._claims.drop(prefix, claimant):
            self._dropped((prefix,))

    def drop_all(self, matches: Callable[[Claimant], bool]) -> None:
        """All claims of some claimants are withdrawn, as when a cluster leaves."""
        self._dropped(self._claims.drop_owners(matches))

    def _dropped(self, prefixes: Sequence[Prefix]) -> None:
        for prefix in prefixes:
            rest = self._claims.of(prefix)
            if not rest or not any(s.owner.source is Source.CLUSTERMESH for s in rest):
                self._peers.discard(prefix)
        self._changed(prefixes)

    def recheck(self, prefix: Prefix) -> None:
        """Who may speak for a prefix has changed: the claims of peers inside are judged again."""
        if not self._peers.apart(prefix):
            self._changed(self._peers.inside(prefix))

    def recheck_host(self, cluster: ClusterName, host: Address) -> None:
        """A peer's node has come or gone: claims that it alone decides are judged again."""
        self._changed(self._astray.members((cluster, host)))

    def recheck_waiting(self, cluster: ClusterName) -> None:
        """A peer's nodes are listed: what still waits is judged again."""
        self._changed(self._waiting.members(cluster))

    def _changed(self, prefixes: Sequence[Prefix]) -> None:
        if prefixes:
            self._judge(prefixes)
            self._on_change(prefixes)

    def _judge(self, prefixes: Sequence[Prefix], judged: bool = False) -> None:
        """Note what there is to say about claims: nearly always nothing."""
        noted, claims, block = self._noted, self._claims, b""
        speaker, hosts = NOBODY
        for prefix in prefixes:
            only = claims.sole(prefix)
            if only is None or prefix in noted:
                if prefix in noted or prefix in claims:
                    self._note(prefix)
                continue
            claimant = only.owner
            if judged or claimant.source is not Source.CLUSTERMESH:
                continue
            if claimant.origin:  # a node's own address, of which a block holds many
                if refusal(prefix, claimant, only.claim, self._local) is not None:
                    self._note(prefix)
                continue
            # A block's sole speaker may say anything of it but a reserved identity.
            if prefix[:15] != block:
                block = prefix[:15]
                speaker, hosts = self._local.sole_speaker(block)
            row = only.claim.entry
            host = row.tunnel_endpoint
            if (
                speaker != claimant.cluster
                or prefix[16] < BLOCK_LENGTH
                or (host is not None and host not in hosts)
                or (row.identity < _FIRST_ALLOCATABLE and row.identity not in _FOREIGN)
            ):
                self._note(prefix)

    def _note(self, prefix: Prefix) -> None:
        said = self._claims.of(prefix)
        _, sentences, waiting = decide(prefix, said, self._local)
        away = self._away(prefix, said)
        self._waiting.set(prefix, tuple(dict.fromkeys(waiting)))
        self._astray.set(prefix, away)
        self.problems.set(prefix, sentences)
        if waiting or away or sentences:
            self._noted.add(prefix)
        else:
            self._noted.discard(prefix)

    def _away(
        self, prefix: Prefix, said: tuple[SaidIp, ...]
    ) -> tuple[tuple[ClusterName, Address], ...]:
        found = []
        for one in said:
            claimant, host = one.owner, one.claim.entry.tunnel_endpoint
            if claimant.source is not Source.CLUSTERMESH or claimant.origin or host is None:
                continue
            if not self._local.at_home(claimant.cluster, prefix, host):
                found.append((claimant.cluster, host))
        return tuple(dict.fromkeys(found))

    def winner(self, prefix: Prefix) -> SaidIp | None:
        """The claim that holds, with who made it."""
        only = self._claims.sole(prefix)
        if only is not None and prefix not in self._noted:  # judged when it last changed
            return only
        said = self._claims.of(prefix)
        return decide(prefix, said, self._local)[0] if said else None

    def get(self, prefix: Prefix, /) -> IpcacheEntry | None:
        """The wanted row."""
        best = self.winner(prefix)
        return best.claim.entry if best else None

    def items(self) -> Iterator[tuple[Prefix, IpcacheEntry]]:
        """All wanted rows."""
        for prefix, best in self.winners():
            yield prefix, best.claim.entry

    def winners(self) -> Iterator[tuple[Prefix, SaidIp]]:
        """Every prefix with the claim that holds."""
        for prefix in self._claims:
            best = self.winner(prefix)
            if best is not None:
                yield prefix, best

    def __len__(self) -> int:
        return len(self._claims)


def desired_ipcache(
    claims: Iterable[tuple[Prefix, Claimant, IpClaim]], own_prefixes: Iterable[Prefix]
) -> dict[Prefix, IpcacheEntry]:
    """The same table from all claims at once: what tests hold the incremental one against."""
    own = list(own_prefixes)
    best: dict[Prefix, tuple[tuple[int, str], tuple[str, str], IpcacheEntry]] = {}
    for prefix, claimant, claim in claims:
        if claimant.source is Source.CLUSTERMESH and any(
            o.version == prefix.version and o.overlaps(prefix) for o in own
        ):
            continue
        rank = (int(claimant.source), str(claimant.cluster))
        age = (claim.born, claimant.origin)
        known = best.get(prefix)
        if known is None or rank < known[0] or (rank == known[0] and age > known[1]):
            best[prefix] = (rank, age, claim.entry)
    return {prefix: found for prefix, (_, _, found) in best.items()}
