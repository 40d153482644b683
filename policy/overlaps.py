"""Prefixes of rules in which pods live, although rules of prefixes select none. Pure."""

from collections.abc import Iterable

from model.address import MAPPED_BITS, Prefix
from policy.known import Known
from policy.objects.notes import Finding
from policy.rules import CidrGroupPeer, CidrPeer, PolicyRule


def pods_meant(
    known: Known, rules: Iterable[PolicyRule], pod_cidrs: Iterable[Prefix]
) -> list[Finding]:
    """A remark for each prefix that overlaps one of pods, but for those of all addresses."""
    named = (p for rule in rules for part in rule.rules for p in part.peers or ())
    peers = {
        part
        for peer in named
        if isinstance(peer, CidrPeer | CidrGroupPeer)
        for part in known.expand(peer)
        if isinstance(part, CidrPeer) and not _is_all(part.prefix)
    }
    if not peers:
        return []
    pods = list(pod_cidrs)
    found = {p.prefix for p in peers if any(_meets(p, prefix) for prefix in pods)}
    return [
        Finding(
            "spec",
            f"{prefix} has addresses of pods, and rules of prefixes select no pods: name them by "
            "their labels, or set policy-cidr-match-mode to pods",
        )
        for prefix in sorted(found)
    ]


def _is_all(prefix: Prefix) -> bool:
    return prefix.length == (MAPPED_BITS if prefix.version == 4 else 0)


def _meets(peer: CidrPeer, pods: Prefix) -> bool:
    if peer.prefix.version != pods.version or not peer.prefix.overlaps(pods):
        return False
    narrow = max(peer.prefix, pods, key=lambda prefix: prefix.length)
    return not any(hole.covers(narrow) for hole in peer.excepts)
