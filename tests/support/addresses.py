"""Addresses and prefixes for properties."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from model.address import Address, Prefix, make_address, make_prefix


def truncated(address: Address, length: int) -> Prefix:
    """The prefix of a length that an address lies in."""
    width = address.max_prefixlen
    kept = int(address) >> width - length << width - length
    return make_prefix(make_address(kept.to_bytes(width // 8)), length)


def _ours(address: IPv4Address | IPv6Address) -> Address:
    return make_address(address.packed)


v4: st.SearchStrategy[Address] = st.ip_addresses(v=4).map(_ours)
# What is IPv4 is written so.
v6: st.SearchStrategy[Address] = (
    st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None and a.scope_id is None).map(_ours)
)
addresses = v4 | v6


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    """Of either family and any length."""
    address = draw(addresses)
    return truncated(address, draw(st.integers(0, address.max_prefixlen)))
