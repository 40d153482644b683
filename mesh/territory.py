"""What each peer may speak for: the addresses and pod prefixes that its own nodes declare. Pure.

A node record is believed as a whole or refused as a whole, first by what is ours; between two peers
that declare one address the name decides, so that every node of this cluster takes the same side. A
record about an address waits for the node that declares it: nothing orders records of two types.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from mesh.blocks import Blocks
from mesh.guard import POD_PREFIX, Covering, LocalPrefixes
from mesh.problems import Problems, Violation
from model.address import Address, Prefix, host_prefix
from model.cluster import ClusterName
from model.node import EXTERNAL_IP, INTERNAL_IP, Node, NodeName

NodeKey = tuple[ClusterName, NodeName]
WAITING = "waiting"  # no violation yet: the peer's nodes are not all listed
MAX_PER_NODE = 256  # addresses and prefixes
SHORTEST = {4: 8, 6: 32}  # a shorter pod prefix takes more than any cluster's share
_MAPPED = IPv6Network("::ffff:0:0/96")  # the same keys as IPv4 in the kernel
_UNUSABLE = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("::/127"),
    _MAPPED,
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)


@dataclass(slots=True)
class _Record:
    node: Node
    prefixes: frozenset[Prefix]
    hosts: frozenset[Address]  # where tunnels may end
    why: Violation | None = None  # against what is ours
    heard: bool = False  # not against another peer, either

    @property
    def key(self) -> NodeKey:
        return self.node.cluster, self.node.name


_Speech = tuple[ClusterName, frozenset[Prefix]] | None


class Territories(LocalPrefixes):
    """Ours and theirs. Hooks are told what must be judged again."""

    def __init__(self) -> None:
        super().__init__()
        self.on_prefix: Callable[[Prefix], None] = lambda prefix: None
        self.on_host: Callable[[ClusterName, Address], None] = lambda cluster, host: None
        self.on_verdict: Callable[[Node, bool], None] = lambda node, heard: None
        self.problems: Problems[NodeKey] = Problems()
        self._records: dict[NodeKey, _Record] = {}
        self._declared: Covering[dict[NodeKey, None]] = Covering()
        self._prefixes = Blocks()  # all that are declared
        self._lawful: Covering[dict[ClusterName, int]] = Covering()
        self._hosts: dict[tuple[ClusterName, Address], dict[NodeKey, _Record]] = {}
        self._listed: set[ClusterName] = set()

    def add(self, prefix: Prefix, kind: str = POD_PREFIX) -> bool:
        """True when it was not known. Peers that overlap with it are judged again."""
        news = super().add(prefix, kind)
        if news:
            self._judge_again(prefix)
        return news

    def remove(self, prefix: Prefix, kind: str = POD_PREFIX) -> bool:
        """True when it is not known any more. Peers that overlapped with it are judged again."""
        news = super().remove(prefix, kind)
        if news:
            self._judge_again(prefix)
        return news

    def listed(self, cluster: ClusterName) -> bool:
        """All nodes of a peer have been told: what waits from now on is a violation."""
        news = cluster not in self._listed
        self._listed.add(cluster)
        return news

    def forget(self, cluster: ClusterName) -> None:
        """A peer leaves; its nodes have been withdrawn."""
        self._listed.discard(cluster)
        self.problems.forget(cluster)

    def refuses(
        self, cluster: ClusterName, prefix: Prefix, host: Address | None = None
    ) -> Violation | None:
        """Why a cluster may not speak for a prefix behind ``host``; ``None``: it may."""
        ours = super().refuses(cluster, prefix)
        if ours is not None:
            return ours
        bits, length = int(prefix.network_address), prefix.prefixlen
        found = self._undeclared(cluster, prefix, self._speakers(prefix.version, bits, length))
        if found is not None:
            return found
        if host is not None and (cluster, host) not in self._hosts:
            return self._pending(
                "tunnel-endpoint",
                cluster,
                f"cluster {cluster} puts {prefix} behind {host}, which is no address of its nodes",
            )
        return None

    def refuses_backend(self, cluster: ClusterName, address: Address) -> Violation | None:
        """Why a cluster may not offer an address as a backend; ours is judged by ``contains``."""
        width = address.max_prefixlen
        speakers = self._speakers(address.version, int(address), width)
        return self._undeclared(cluster, address, speakers)

    def _speakers(self, version: int, bits: int, length: int) -> Iterator[ClusterName]:
        for clusters in self._lawful.covering(version, bits, length):
            yield from clusters

    def _undeclared(
        self, cluster: ClusterName, what: Prefix | Address, speakers: Iterable[ClusterName]
    ) -> Violation | None:
        first, mine = cluster, False
        for speaker in speakers:
            mine = mine or speaker == cluster
            first = min(first, speaker)
        if not mine:
            return self._pending(
                "undeclared-address",
                cluster,
                f"cluster {cluster} claims {what}, which none of its nodes declares",
            )
        if first != cluster:
            return Violation(
                "other-cluster",
                cluster,
                f"cluster {cluster} claims {what}, which cluster {first} has: "
                "give the clusters address ranges that do not overlap",
            )
        return None

    def _pending(self, kind: str, cluster: ClusterName, sentence: str) -> Violation:
        return Violation(kind if cluster in self._listed else WAITING, cluster, sentence)

    def at_home(self, cluster: ClusterName, prefix: Prefix, host: Address) -> bool:
        """Whether changes of the node behind ``host`` are told by its own pod prefixes."""
        records = self._hosts.get((cluster, host), {})
        return any(_covers(p, prefix) for r in records.values() for p in r.prefixes)

    def declare(self, node: Node) -> bool:
        """A peer's node is new or has changed; whether it may claim what it says."""
        fresh = _record(node)
        known = self._records.get(fresh.key)
        fresh.why = self._judge(fresh)
        self._records[fresh.key] = fresh
        for prefix in fresh.prefixes - (known.prefixes if known else frozenset()):
            keys = self._declared.get(prefix)
            if keys is None:
                self._declared.set(prefix, {fresh.key: None})
                self._prefixes.add(prefix)
            else:
                keys[fresh.key] = None
        if known:
            self._undeclare(known, known.prefixes - fresh.prefixes)
        changed = self._speak(_lawful(known), _lawful(fresh))
        self._tell(changed, known, fresh)
        return fresh.heard

    def withdraw(self, cluster: ClusterName, name: NodeName) -> None:
        """A peer's node is gone."""
        known = self._records.pop((cluster, name), None)
        if known is not None:
            self._undeclare(known, known.prefixes)
            self._tell(self._speak(_lawful(known), None), known, None)
            self.problems.drop(known.key)

    def _undeclare(self, record: _Record, prefixes: Iterable[Prefix]) -> None:
        for prefix in prefixes:
            keys = self._declared.get(prefix)
            assert keys is not None
            del keys[record.key]
            if not keys:
                self._declared.pop(prefix)
                self._prefixes.discard(prefix)

    def _judge(self, record: _Record) -> Violation | None:
        cluster, name = record.key
        if len(record.prefixes) > MAX_PER_NODE:
            return Violation(
                "too-many-addresses",
                cluster,
                f"node {name} of cluster {cluster} has {len(record.prefixes)} addresses and pod "
                f"CIDRs: at most {MAX_PER_NODE} are taken",
            )
        for prefix in sorted(record.prefixes, key=str):
            why = _unusable(prefix, cluster, name) or LocalPrefixes.refuses(self, cluster, prefix)
            if why is not None:
                return why
        return None

    def _judge_again(self, prefix: Prefix) -> None:
        """What is ours has changed here."""
        bits, length = int(prefix.network_address), prefix.prefixlen
        touched: dict[NodeKey, None] = {}
        for keys in self._declared.covering(prefix.version, bits, length):
            touched |= keys
        for keys in self._declared.inside(prefix):
            touched |= keys
        for key in touched:
            record = self._records[key]
            before, heard = _lawful(record), record.heard
            record.why = self._judge(record)
            self._tell(self._speak(before, _lawful(record)), record, record)
            if record.heard != heard:
                self.on_verdict(record.node, record.heard)
        self.on_prefix(prefix)

    def _speak(self, old: _Speech, new: _Speech) -> set[Prefix]:
        """What a record speaks for by our leave, in place of an older one; the difference."""
        before, after = (old[1] if old else frozenset()), (new[1] if new else frozenset())
        for prefix in after - before:
            assert new is not None
            counts = self._lawful.get(prefix)
            if counts is None:
                counts = {}
                self._lawful.set(prefix, counts)
            counts[new[0]] = counts.get(new[0], 0) + 1
        for prefix in before - after:
            assert old is not None
            counts = self._lawful.get(prefix)
            assert counts is not None
            counts[old[0]] -= 1
            if not counts[old[0]]:
                del counts[old[0]]
                if not counts:
                    self._lawful.pop(prefix)
        return set(before ^ after)

    def _tell(self, changed: set[Prefix], old: _Record | None, new: _Record | None) -> None:
        """Judge between peers anew where somebody's speech has changed, then tell who depends."""
        some = new or old
        assert some is not None
        touched: dict[NodeKey, None] = {}
        for prefix in changed:
            for inner in self._prefixes.inside(prefix):
                touched |= self._declared.get(inner) or {}
        again = set(changed)
        moved = self._hear(old, new, again)
        verdicts = []
        for key in touched:
            record = self._records[key]
            if record.node.cluster > some.node.cluster:
                before = record.heard
                moved |= self._hear(record, record, again)
                if record.heard != before:
                    verdicts.append(record)
        for prefix in again:
            self.on_prefix(prefix)
        for cluster, host in moved:
            self.on_host(cluster, host)
        for record in verdicts:
            self.on_verdict(record.node, record.heard)

    def _hear(
        self, old: _Record | None, new: _Record | None, again: set[Prefix]
    ) -> set[tuple[ClusterName, Address]]:
        """Where tunnels may end, by a record in place of an older one; the difference."""
        before = {(old.node.cluster, h) for h in old.hosts} if old and old.heard else set()
        after = set()
        if new is not None:
            why = new.why or self._contested(new)
            new.heard = why is None
            self.problems.set(new.key, () if why is None else (why,))
            after = {(new.node.cluster, h) for h in new.hosts} if new.heard else set()
        for host in before:
            assert old is not None
            records = self._hosts[host]
            del records[old.key]
            if not records:
                del self._hosts[host]
        for host in after:
            assert new is not None
            self._hosts.setdefault(host, {})[new.key] = new
        if before != after:
            again |= (old.prefixes if old else set()) | (new.prefixes if new else set())
        return before ^ after

    def _contested(self, record: _Record) -> Violation | None:
        cluster, name = record.key
        for prefix in sorted(record.prefixes, key=str):
            bits, length = int(prefix.network_address), prefix.prefixlen
            first = min(self._speakers(prefix.version, bits, length), default=cluster)
            if first < cluster:
                return Violation(
                    "other-cluster",
                    cluster,
                    f"node {name} of cluster {cluster} claims {prefix}, which cluster {first} has: "
                    "give the clusters address ranges that do not overlap",
                )
        return None


def _lawful(record: _Record | None) -> _Speech:
    return None if record is None or record.why else (record.node.cluster, record.prefixes)


def _record(node: Node) -> _Record:
    addresses = [a.ip for a in node.addresses]
    addresses += (*node.health_ips, *node.ingress_ips)
    hosts = frozenset(a.ip for a in node.addresses if a.type in (INTERNAL_IP, EXTERNAL_IP))
    return _Record(node, frozenset((*map(host_prefix, addresses), *node.pod_cidrs)), hosts)


def _covers(outer: Prefix, inner: Prefix) -> bool:
    shift = outer.max_prefixlen - outer.prefixlen
    return (
        outer.version == inner.version
        and outer.prefixlen <= inner.prefixlen
        and int(outer.network_address) >> shift == int(inner.network_address) >> shift
    )


def _unusable(prefix: Prefix, cluster: ClusterName, name: NodeName) -> Violation | None:
    base = prefix.network_address
    scoped = isinstance(base, IPv6Address) and base.scope_id is not None
    if scoped or any(u.version == prefix.version and u.overlaps(prefix) for u in _UNUSABLE):
        return Violation(
            "unusable-address",
            cluster,
            f"node {name} of cluster {cluster} claims {prefix}, which no node or pod can have",
        )
    if prefix.prefixlen < SHORTEST[prefix.version]:
        return Violation(
            "wide-pod-cidr",
            cluster,
            f"node {name} of cluster {cluster} claims {prefix}: a pod CIDR shorter than "
            f"/{SHORTEST[prefix.version]} is not taken",
        )
    return None
