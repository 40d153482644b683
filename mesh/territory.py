"""What each peer may speak for: the addresses and pod prefixes that its own nodes declare. Pure.

A node record is believed as a whole or refused as a whole, first by what is ours; between two peers
that declare one address the name decides, so that every node of this cluster takes the same side. A
record about an address waits for the node that declares it: nothing orders records of two types.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mesh.blocks import BLOCK_LENGTH, Block, Blocks, block_of, blocks_of
from mesh.guard import NOBODY, POD_PREFIX, Covering, LocalPrefixes, Speaker
from mesh.problems import Problems, Violation
from model.address import Address, Prefix, host_prefix, parse_prefix
from model.cluster import ClusterName
from model.node import EXTERNAL_IP, INTERNAL_IP, Node, NodeName

NodeKey = tuple[ClusterName, NodeName]
WAITING = "waiting"  # no violation yet: the peer's nodes are not all listed
MAX_PER_NODE = 256  # addresses and prefixes
SHORTEST = {4: 8, 6: 32}  # a shorter pod prefix takes more than any cluster's share
_UNUSABLE = tuple(
    (unusable.bits, unusable.length)
    for unusable in map(
        parse_prefix,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255/32",
            "::/127",
            "fe80::/10",
            "ff00::/8",
        ),
    )
)
_V4, _STRANGE = bytes(10) + b"\xff\xff", {0, 127, 169, *range(224, 256)}  # by their first number


@dataclass(slots=True, eq=False)
class _Record:
    node: Node
    prefixes: tuple[Prefix, ...]  # each once
    hosts: tuple[Address, ...]  # where tunnels may end
    why: Violation | None = None  # against what is ours
    heard: bool = False  # not against another peer, either

    @property
    def key(self) -> NodeKey:
        return self.node.cluster, self.node.name


_Speech = tuple[ClusterName, tuple[Prefix, ...]] | None


class Territories(LocalPrefixes):
    """Ours and theirs. Hooks are told what must be judged again."""

    def __init__(self) -> None:
        super().__init__()
        self.on_prefix: Callable[[Prefix], None] = lambda prefix: None
        self.on_host: Callable[[ClusterName, Address], None] = lambda cluster, host: None
        self.on_verdict: Callable[[Node, bool], None] = lambda node, heard: None
        self.problems: Problems[NodeKey] = Problems()
        self._records: dict[ClusterName, dict[NodeName, _Record]] = {}
        self._declared: Covering[tuple[_Record, ...]] = Covering()
        self._prefixes = Blocks()  # all that are declared
        self._lawful: Covering[dict[ClusterName, int]] = Covering()
        self._alone: dict[ClusterName, dict[ClusterName, int]] = {}  # shared by all that say so
        self._sure: dict[Block, Speaker] = {}  # blocks of which one cluster may have all
        self._hosts: dict[ClusterName, dict[Address, tuple[_Record, ...]]] = {}
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
        self._records.pop(cluster, None)
        self.problems.forget(cluster)

    def refuses(
        self, cluster: ClusterName, prefix: Prefix, host: Address | None = None
    ) -> Violation | None:
        """Why a cluster may not speak for a prefix behind ``host``; ``None``: it may."""
        ours = super().refuses(cluster, prefix)
        if ours is not None:
            return ours
        found = self._undeclared(cluster, prefix)
        if found is not None:
            return found
        if host is not None and host not in self._hosts.get(cluster, ()):
            return self._pending(
                "tunnel-endpoint",
                cluster,
                f"cluster {cluster} puts {prefix} behind {host}, which is no address of its nodes",
            )
        return None

    def refuses_backend(self, cluster: ClusterName, address: Address) -> Violation | None:
        """Why a cluster may not offer an address as a backend; ours is judged by ``contains``."""
        if self.sole_speaker(block_of(address))[0] == cluster:
            return None
        return self._undeclared(cluster, address)

    def _speakers(self, what: Prefix | Address) -> Iterable[ClusterName]:
        found = self._lawful.covering(what)
        return found[0] if len(found) == 1 else {c: None for clusters in found for c in clusters}

    def _undeclared(self, cluster: ClusterName, what: Prefix | Address) -> Violation | None:
        first, mine = cluster, False
        for speaker in self._speakers(what):
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
        records = self._hosts.get(cluster, {}).get(host, ())
        return any(p.covers(prefix) for r in records for p in r.prefixes)

    def sole_speaker(self, block: Block) -> Speaker:
        """Who surely may say anything of every address in a block, and be ``at_home``."""
        sure = self._sure.get(block)
        if sure is None:
            sure = self._sure[block] = self._judge_block(block)
        return sure

    def _judge_block(self, block: Block) -> Speaker:
        whole = Prefix(block + bytes((0, BLOCK_LENGTH)))
        first = min(self._speakers(whole), default=None)
        if first is None or self._overlap(whole) is not None:
            return NOBODY
        for inner in self._prefixes.inside(whole):
            if any(r.node.cluster != first for r in self._declared.get(inner) or ()):
                return NOBODY
        records = [r for found in self._declared.covering(whole) for r in found]
        heard = [r for r in records if r.heard and r.node.cluster == first]
        if len(heard) == 1:
            return first, heard[0].hosts
        return first, tuple({h: None for r in heard for h in r.hosts})

    def _unsure(self, prefix: Prefix) -> None:
        """Who may speak for a prefix, or for something in it or around it, has changed."""
        if prefix[16] >= BLOCK_LENGTH:
            self._sure.pop(prefix[:15], None)
            return
        for block in list(blocks_of(prefix, self._sure, len(self._sure))):
            self._sure.pop(block, None)

    def declare(self, node: Node) -> bool:
        """A peer's node is new or has changed; whether it may claim what it says."""
        fresh = _record(node)
        records = self._records.setdefault(node.cluster, {})
        known = records.get(node.name)
        records[node.name] = fresh
        fresh.why = self._judge(fresh)
        if not (known or fresh.why) and all(map(self._prefixes.apart, fresh.prefixes)):
            self._settle(fresh)
            return True
        if known:
            self._undeclare(known)
        for prefix in fresh.prefixes:
            others = self._declared.get(prefix)
            self._declared.set(prefix, (fresh,) if others is None else (*others, fresh))
            if others is None:
                self._prefixes.add(prefix)
        changed = self._speak(_lawful(known), _lawful(fresh))
        self._tell(changed, known, fresh)
        return fresh.heard

    def _settle(self, fresh: _Record) -> None:
        """Take a record of addresses about which nobody has said anything: nearly always so."""
        cluster, only = fresh.node.cluster, (fresh,)
        alone = self._alone.setdefault(cluster, {cluster: 1})
        fresh.heard = True
        for prefix in fresh.prefixes:
            self._declared.set(prefix, only)
            self._lawful.set(prefix, alone)
        self._prefixes.add_all(fresh.prefixes)
        self._hosts.setdefault(cluster, {}).update(dict.fromkeys(fresh.hosts, only))
        for prefix in fresh.prefixes:
            self._unsure(prefix)
        for prefix in fresh.prefixes:
            self.on_prefix(prefix)
        for host in fresh.hosts:
            self.on_host(cluster, host)

    def withdraw(self, cluster: ClusterName, name: NodeName) -> None:
        """A peer's node is gone."""
        known = self._records.get(cluster, {}).pop(name, None)
        if known is not None:
            self._undeclare(known)
            self._tell(self._speak(_lawful(known), None), known, None)
            self.problems.drop(known.key)

    def _undeclare(self, record: _Record) -> None:
        for prefix in record.prefixes:
            rest = tuple(r for r in self._declared.get(prefix) or () if r is not record)
            if rest:
                self._declared.set(prefix, rest)
            else:
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
        for prefix in record.prefixes:
            why = _unusable(prefix, cluster, name) or LocalPrefixes.refuses(self, cluster, prefix)
            if why is not None:
                return why
        return None

    def _judge_again(self, prefix: Prefix) -> None:
        """What is ours has changed here."""
        self._unsure(prefix)
        touched: dict[_Record, None] = {}
        for records in (*self._declared.covering(prefix), *self._declared.inside(prefix)):
            touched |= dict.fromkeys(records)
        for record in touched:
            before, heard = _lawful(record), record.heard
            record.why = self._judge(record)
            self._tell(self._speak(before, _lawful(record)), record, record)
            if record.heard != heard:
                self.on_verdict(record.node, record.heard)
        self.on_prefix(prefix)

    def _speak(self, old: _Speech, new: _Speech) -> set[Prefix]:
        """What a record speaks for by our leave, in place of an older one; the difference."""
        before, after = set(old[1] if old else ()), set(new[1] if new else ())
        for prefix in after - before:
            assert new is not None
            self._count(prefix, new[0], 1)
        for prefix in before - after:
            assert old is not None
            self._count(prefix, old[0], -1)
        return before ^ after

    def _count(self, prefix: Prefix, cluster: ClusterName, more: int) -> None:
        counts = self._lawful.get(prefix) or {}
        rest = {c: n for c, n in counts.items() if c != cluster}
        mine = counts.get(cluster, 0) + more
        if not rest and mine == 1:
            alone = self._alone.setdefault(cluster, {cluster: 1})
            self._lawful.set(prefix, alone)
        elif mine or rest:
            self._lawful.set(prefix, rest | {cluster: mine} if mine else rest)
        else:
            self._lawful.pop(prefix)

    def _tell(self, changed: set[Prefix], old: _Record | None, new: _Record | None) -> None:
        """Judge between peers anew where somebody's speech has changed, then tell who depends."""
        some = new or old
        assert some is not None
        touched: dict[_Record, None] = {}
        for prefix in changed:
            for inner in self._prefixes.inside(prefix):
                for record in self._declared.get(inner) or ():
                    if record.node.cluster > some.node.cluster:
                        touched[record] = None
        again = set(changed)
        moved = self._hear(old, new, again)
        verdicts = []
        for record in touched:
            before = record.heard
            moved |= self._hear(record, record, again)
            if record.heard != before:
                verdicts.append(record)
        for prefix in again:
            self._unsure(prefix)
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
        for cluster, host in before:
            self._unhost(cluster, host, old)
        for cluster, host in after:
            assert new is not None
            known = self._hosts.setdefault(cluster, {})
            known[host] = (*known.get(host, ()), new)
        if before != after:
            again.update(old.prefixes if old else (), new.prefixes if new else ())
        return before ^ after

    def _unhost(self, cluster: ClusterName, host: Address, record: _Record | None) -> None:
        known = self._hosts[cluster]
        rest = tuple(r for r in known[host] if r is not record)
        if rest:
            known[host] = rest
            return
        del known[host]
        if not known:
            del self._hosts[cluster]

    def _contested(self, record: _Record) -> Violation | None:
        cluster, name = record.key
        for prefix in record.prefixes:
            first = min(self._speakers(prefix), default=cluster)
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
    hosts = dict.fromkeys(a.ip for a in node.addresses if a.type in (INTERNAL_IP, EXTERNAL_IP))
    prefixes = {*map(host_prefix, addresses), *node.pod_cidrs}
    return _Record(node, tuple(sorted(prefixes)), tuple(hosts))


def _unusable(prefix: Prefix, cluster: ClusterName, name: NodeName) -> Violation | None:
    if prefix[:12] == _V4 and prefix[12] not in _STRANGE and prefix[16] >= 104:
        return None
    bits, length = prefix.bits, prefix[16]
    for unusable, wide in _UNUSABLE:
        if (bits ^ unusable) >> 128 - (wide if wide < length else length) == 0:
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
