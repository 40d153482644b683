"""Claims about addresses → one ipcache. Pure.

A stronger source wins (``model.ipcache.Source``). Between two remote clusters that claim one
address the name decides, so that every node of this cluster takes the same side; within one cluster
the younger pod has the address. A peer is not heard about addresses of our own pod prefixes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mesh.claims import Claims
from mesh.guard import LocalPrefixes
from mesh.problems import Problems
from model.address import Address, Prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry, Source

_OWN = ClusterId(0)  # this cluster, in every table of the datapath


class Claimant(NamedTuple):
    """Who makes a claim. ``origin`` tells objects of one source apart."""

    source: Source
    cluster: ClusterName = ClusterName("")
    origin: str = ""


@dataclass(frozen=True, slots=True)
class IpClaim:
    """What is claimed; the names are for people."""

    entry: IpcacheEntry
    namespace: str = ""
    pod: str = ""
    born: str = ""  # creation time of the object, RFC 3339: sorts as text


@lru_cache(maxsize=65536)
def entry(
    identity: NumericIdentity,
    tunnel_endpoint: Address | None = None,
    encrypt_key: int = 0,
    cluster_id: ClusterId = _OWN,
) -> IpcacheEntry:
    """An entry that equal ones share: all pods of one workload on one node have the same."""
    return IpcacheEntry(identity, tunnel_endpoint, encrypt_key, cluster_id)


Pair = tuple[Claimant, IpClaim]


def decide(
    prefix: Prefix, pairs: tuple[Pair, ...], local: LocalPrefixes
) -> tuple[Pair | None, tuple[str, ...]]:
    """The claim that holds, and what is wrong with the others."""
    if len(pairs) == 1 and pairs[0][0].source is not Source.CLUSTERMESH:
        return pairs[0], ()
    sentences: list[str] = []
    heard: list[Pair] = []
    for pair in sorted(pairs, key=lambda p: (p[0].source, p[0].cluster)):
        claimant = pair[0]
        if claimant.source is Source.CLUSTERMESH:
            ours = local.overlap(prefix)
            if ours is not None:
                sentences.append(
                    f"cluster {claimant.cluster} claims {prefix}, which lies in this cluster's "
                    f"pod prefix {ours}: give the clusters pod CIDRs that do not overlap"
                )
                continue
        heard.append(pair)
    if not heard:
        return None, tuple(sentences)
    first = heard[0][0]
    best = max((p for p in heard if p[0][:2] == first[:2]), key=lambda p: (p[1].born, p[0].origin))
    sentences += [
        f"{prefix} is claimed by cluster {claimant.cluster} and by "
        f"{'cluster ' + first.cluster if first.source is Source.CLUSTERMESH else 'this cluster'}, "
        "which keeps it: give the clusters pod CIDRs that do not overlap"
        for claimant, _ in heard
        if claimant.source is Source.CLUSTERMESH and claimant[:2] != first[:2]
    ]
    return best, tuple(sentences)


class Ipcache:
    """The table, kept key by key. ``on_change`` is told every key whose value may differ."""

    def __init__(self, local: LocalPrefixes, on_change: Callable[[Prefix], None]) -> None:
        self._claims: Claims[Prefix, Claimant, IpClaim] = Claims()
        self._local = local
        self._on_change = on_change
        self.problems: Problems[Prefix] = Problems()

    def put(self, prefix: Prefix, claimant: Claimant, claim: IpClaim) -> None:
        """Hear a claim."""
        if self._claims.put(prefix, claimant, claim):
            self._changed(prefix)

    def drop(self, prefix: Prefix, claimant: Claimant) -> None:
        """A claim is withdrawn."""
        if self._claims.drop(prefix, claimant):
            self._changed(prefix)

    def drop_all(self, matches: Callable[[Claimant], bool]) -> None:
        """All claims of some claimants are withdrawn, as when a cluster leaves."""
        for prefix in self._claims.drop_owners(matches):
            self._changed(prefix)

    def recheck_peers(self) -> None:
        """Our own prefixes have changed: every claim of a peer is judged again."""
        for prefix in list(self._claims):
            if any(c.source is Source.CLUSTERMESH for c, _ in self._claims.of(prefix)):
                self._changed(prefix)

    def _changed(self, prefix: Prefix) -> None:
        _, sentences = decide(prefix, self._claims.of(prefix), self._local)
        self.problems.set(prefix, sentences)
        self._on_change(prefix)

    def winner(self, prefix: Prefix) -> Pair | None:
        """The claim that holds, with who made it."""
        pairs = self._claims.of(prefix)
        return decide(prefix, pairs, self._local)[0] if pairs else None

    def get(self, prefix: Prefix, /) -> IpcacheEntry | None:
        """The wanted row."""
        best = self.winner(prefix)
        return best[1].entry if best else None

    def items(self) -> Iterator[tuple[Prefix, IpcacheEntry]]:
        """All wanted rows."""
        for prefix, (_, claim) in self.winners():
            yield prefix, claim.entry

    def winners(self) -> Iterator[tuple[Prefix, Pair]]:
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
