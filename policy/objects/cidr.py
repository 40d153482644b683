"""CIDRs of rules and of CIDR groups. Pure."""

from model.address import Address, Prefix, host_prefix, make_address, make_prefix, parse_address
from policy.objects.notes import Node
from policy.objects.selectors import group_key, parse
from policy.rules import CidrGroupPeer, CidrPeer


def split(text: str) -> tuple[Address, int]:
    """Address and length, of an address its full one. Raises ``ValueError``."""
    first, slash, length = text.partition("/")
    address = parse_address(first)
    if not slash:
        return address, address.max_prefixlen
    if not (length.isascii() and length.isdigit() and len(length) <= 3):
        raise ValueError(f"{text!r} has no prefix length")
    if int(length) > address.max_prefixlen or (len(length) > 1 and length[0] == "0"):
        raise ValueError(f"{length} is no prefix length of {address}")
    return address, int(length)


def masked(address: Address, length: int) -> Prefix:
    """The prefix an address lies in."""
    bits = address.max_prefixlen - length
    packed = (int(address) >> bits << bits).to_bytes(address.max_prefixlen // 8)
    return make_prefix(make_address(packed), length)


def prefix(node: Node, *, bare: bool) -> tuple[Prefix, Address] | None:
    """The prefix, and the address as it was written; ``bare``: an address will do."""
    text = node.text()
    if not isinstance(node.value, str):
        return None
    try:
        address, length = split(text)
    except ValueError:
        node.error(f"{text[:80]!r} is no CIDR: write for example 192.0.2.0/24 or 2001:db8::/32")
        return None
    if not bare and "/" not in text:
        node.error(f"{text[:80]!r} has no prefix length: write {text[:80]}/{length}")
        return None
    found = masked(address, length)
    if found.network_address != address:
        node.warn(f"has bits behind the prefix length and is read as {found}")
    return found, address


def plain(node: Node) -> tuple[CidrPeer, ...]:
    """``fromCIDR``, ``toCIDR``."""
    found = [prefix(item, bare=True) for item in node.items()]
    return tuple(CidrPeer(f[0]) for f in found if f is not None)


def sets(node: Node) -> tuple[CidrPeer | CidrGroupPeer, ...]:
    """``fromCIDRSet``, ``toCIDRSet``."""
    found = [_set(item) for item in node.items()]
    return tuple(peer for peer in found if peer is not None)


_SOURCES = ("cidr", "cidrGroupRef", "cidrGroupSelector")


def _set(node: Node) -> CidrPeer | CidrGroupPeer | None:
    found = node.fields((*_SOURCES, "except"))
    given = [s for s in _SOURCES if s in found]
    if len(given) != 1:
        node.error(f"needs exactly one of {', '.join(_SOURCES)}")
        return None
    source = found[given[0]]
    if given[0] == "cidr":
        return block(source, found.get("except"))
    holes = tuple(p[0] for p in _excepts(found.get("except")))
    if given[0] == "cidrGroupRef":
        name = source.text()
        if not name and isinstance(source.value, str):
            source.error("names no CIDR group")
        return CidrGroupPeer(name=name, excepts=holes) if name else None
    return CidrGroupPeer(selector=parse(source, group_key), excepts=holes)


def _excepts(node: Node | None) -> list[tuple[Prefix, Address]]:
    read = [prefix(item, bare=False) for item in node.items()] if node else []
    return [p for p in read if p is not None]


def block(source: Node, excepts: Node | None) -> CidrPeer | None:
    """A CIDR with holes; they lie inside by their address, as Cilium checks it."""
    whole = prefix(source, bare=False)
    holes = _excepts(excepts)
    if whole is None:
        return None
    for hole, address in holes:
        assert excepts is not None
        # `::/0` has room for the mapped addresses of the other family.
        if hole.version != whole[0].version or not whole[0].covers(host_prefix(address)):
            excepts.error(f"{hole} is not inside of {whole[0]}")
        elif hole.covers(whole[0]):
            excepts.warn(f"{hole} covers all of {whole[0]}: nothing is left")
    return CidrPeer(whole[0], tuple(hole for hole, _ in holes))
