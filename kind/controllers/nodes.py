"""Pod prefixes for nodes that have none. Adapter."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

from kind.apiserver.objects import Obj, dig
from kind.controllers.hub import Hub, Key, key_of

Network: TypeAlias = IPv4Network | IPv6Network
NODE_BITS_V4, NODE_BITS_V6 = 24, 80


def free_prefix(cluster: Network, taken: Iterable[str]) -> Network | None:
    """The first prefix for a node that overlaps none of those taken. Pure."""
    used = [ip_network(t) for t in taken]
    bits = max(cluster.prefixlen, NODE_BITS_V4 if cluster.version == 4 else NODE_BITS_V6)
    for candidate in cluster.subnets(new_prefix=bits):
        if not any(candidate.version == u.version and candidate.overlaps(u) for u in used):
            return candidate
    return None


class PrefixController:
    """One key per node; a node gets a prefix of each of the cluster's."""

    name = "podcidr"

    def __init__(self, hub: Hub, clusters: Sequence[Network]) -> None:
        """``clusters``: one per family, the first family first."""
        self._hub = hub
        self._clusters = clusters
        self._given: dict[str, list[str]] = {}  # by node, while the request is under way

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == "nodes" and new is not None and not dig(new, "spec", "podCIDR"):
            return [key_of(new)]
        return ()

    async def reconcile(self, key: Key) -> None:
        node = self._hub.get("nodes", key)
        if node is None or dig(node, "spec", "podCIDR"):
            return
        taken = {str(c) for n in self._hub.all("nodes") for c in dig(n, "spec", "podCIDRs") or []}
        taken |= {text for texts in self._given.values() for text in texts}
        mine = []
        for cluster in self._clusters:
            prefix = free_prefix(cluster, taken)
            if prefix is None:
                raise OSError(
                    f"no pod prefix left in {cluster} for node {key[1]}: "
                    "give the controllers a larger --cluster-cidr"
                )
            mine.append(str(prefix))
        self._given[key[1]] = mine
        try:
            spec = {"podCIDR": mine[0], "podCIDRs": mine}
            await self._hub.merge("nodes", node, {"spec": spec})
        finally:
            self._given.pop(key[1], None)
