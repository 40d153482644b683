"""Messages of the routing socket: what is packed can be taken apart, and what is cut short too."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from datapath import filter_messages, link_messages
from datapath.link_messages import LinkAddress, NewLink
from datapath.netlink_messages import answers, attribute, attributes, error_of
from model.address import parse_address

values = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8)


@given(values)
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    """Whatever their lengths."""
    body = b"".join(attribute(kind, value) for kind, value in wanted.items())
    found = attributes(memoryview(body))
    assert {kind: bytes(value) for kind, value in found.items()} == wanted


@given(st.binary(max_size=200))
def test_garbage_ends(data: bytes) -> None:
    """Bytes that make no sense are an end, not a loop and not an error."""
    for answer in answers(data):
        attributes(answer.body)
        error_of(answer.body)


def test_a_pair_says_everything_of_both_ends() -> None:
    """The kernel's answer to a question has the form of an order."""
    host = NewLink("lxc1", b"\2\0\0\0\0\1", 1500, 1000)
    message = link_messages.pair(host, NewLink("eth0", b"\2\0\0\0\0\2", netns_fd=7), 9)
    (order,) = answers(message)
    assert (order.kind, order.sequence) == (link_messages.NEW_LINK, 9)
    link = link_messages.read_link(order.body)
    assert (link.name, link.mac, link.mtu, link.kind) == ("lxc1", host.mac, 1500, "veth")
    peer = link_messages.read_link(memoryview(link.data[1]))
    assert (peer.name, peer.mac) == ("eth0", b"\2\0\0\0\0\2")


def test_an_address_comes_back() -> None:
    """Of either family, with its scope."""
    for text, scope in (("10.1.0.1", 253), ("fd00::1", 0)):
        address = parse_address(text)
        (order,) = answers(link_messages.add_address(4, address, scope, 2, False, 1))
        row = link_messages.read_address(order.body)
        assert row == LinkAddress(4, address, address, address.max_prefixlen, scope)


def test_an_address_of_another_family_is_passed_over() -> None:
    """Phonet, MPLS and others have addresses as well."""
    body = struct.pack("=BBBBI", 35, 0, 0, 0, 1)
    assert link_messages.read_address(memoryview(body)) is None


def test_a_filter_comes_back() -> None:
    """By its program's name."""
    (order,) = answers(filter_messages.replace(3, 0xFFFFFFF2, 1, 5, "isthmus_x", 1))
    found = filter_messages.read(order.body)
    assert (found.handle, found.priority, found.name) == (1, 1, "isthmus_x")
