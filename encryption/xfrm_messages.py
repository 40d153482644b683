"""States and policies of the kernel's IPsec as messages of its netlink socket. Pure.

The netlink library has no XFRM. Layouts: `include/uapi/linux/xfrm.h`; native byte order, except for
addresses, ports and SPIs.
"""

import struct
from collections.abc import Iterator

from encryption.ipsec import (
    REPLAY_WINDOW,
    REQUEST_ID,
    Direction,
    Mark,
    Policy,
    PolicyId,
    State,
    StateId,
    Template,
)
from encryption.ipsec_keys import Algorithm, Material
from model.address import Address, Prefix, make_address, make_prefix

NEW_STATE, DELETE_STATE, GET_STATE = 0x10, 0x11, 0x12
DELETE_POLICY, GET_POLICY, UPDATE_POLICY, NEW_POLICY = 0x14, 0x15, 0x19, 0x13
ERROR, DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_AF_INET, _AF_INET6 = 2, 10
_ESP, _TUNNEL = 50, 1
_FLAG_ESN = 128
_ALLOW, _BLOCK = 0, 1
_INFINITE = (1 << 64) - 1
_ALL_ALGORITHMS = 0xFFFFFFFF

_CRYPT, _TEMPLATE, _AEAD, _AUTH, _MARK, _REPLAY = 2, 5, 18, 20, 21, 23
_OUTPUT_MARK, _OUTPUT_MASK = 29, 30

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_SELECTOR = struct.Struct("=16s16s4HH3B3xiI")  # addresses, ports, family, lengths, protocol
_ID = struct.Struct("=16s4sB3x")  # address, SPI, protocol
_LIFETIME = struct.pack("=8Q", *([_INFINITE] * 4), 0, 0, 0, 0)
_NOTHING_YET = bytes(32)  # of a lifetime
_STATE_TAIL = struct.Struct("=12xIIHBBB7x")  # statistics; sequence, request, family, mode, window
_STATE_BYTES = _SELECTOR.size + _ID.size + 16 + len(_LIFETIME) + 32 + _STATE_TAIL.size
_STATE_ID = struct.Struct("=16s4sHBx")
_POLICY_TAIL = struct.Struct("=IIBBBB4x")  # priority, index, direction, action, flags, share
_POLICY_BYTES = _SELECTOR.size + len(_LIFETIME) + 32 + _POLICY_TAIL.size
_POLICY_ID = struct.Struct("=IB3x")
_TEMPLATE_TAIL = struct.Struct("=H2x16sIBBBx3I")
_MARK_PAIR, _U32, _I32 = struct.Struct("=II"), struct.Struct("=I"), struct.Struct("=i")
_NAME_BYTES = 64
_REPLAY_STATE = struct.Struct("=6I")  # words, out, in, out high, in high, window


def answers(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sequence and body of each message of a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def error_of(body: bytes) -> int:
    """The error number of an answer; 0: done."""
    return -int(_I32.unpack_from(body)[0]) if len(body) >= 4 else 0


def dump(kind: int, sequence: int) -> bytes:
    """Ask for all states or all policies."""
    return _message(kind, _DUMP, sequence, b"")


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, sequence, 0) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def _padded(address: Address | None) -> bytes:
    return address.packed.ljust(16, b"\0") if address else bytes(16)


def _family(address: Address) -> int:
    return _AF_INET if address.version == 4 else _AF_INET6


def _address(data: bytes, family: int) -> Address:
    return make_address(data[:4] if family == _AF_INET else data[:16])


# States.


def new_state(key: StateId, state: State, sequence: int) -> bytes:
    """Add a state; one that is there is an error."""
    family = _family(key.receiver)
    selector = _SELECTOR.pack(bytes(16), bytes(16), 0, 0, 0, 0, family, 0, 0, 0, 0, 0)
    body = selector + _ID.pack(_padded(key.receiver), key.spi.to_bytes(4), _ESP)
    body += _padded(state.sender) + _LIFETIME + _NOTHING_YET
    body += _STATE_TAIL.pack(0, REQUEST_ID, family, _TUNNEL, 0, _FLAG_ESN)
    body += _material(state.material)
    body += _attribute(_MARK, _MARK_PAIR.pack(*key.mark))
    body += _attribute(_OUTPUT_MARK, _U32.pack(state.output_mark.value))
    body += _attribute(_OUTPUT_MASK, _U32.pack(state.output_mark.mask))
    words = REPLAY_WINDOW // 32
    body += _attribute(
        _REPLAY, _REPLAY_STATE.pack(words, 0, 0, 0, 0, REPLAY_WINDOW) + bytes(4 * words)
    )
    return _message(NEW_STATE, _ACK | _CREATE | _EXCLUSIVE, sequence, body)


def _material(material: Material) -> bytes:
    encryption, authentication = material.encryption, material.authentication
    if authentication is None:
        return _attribute(_AEAD, _algorithm(encryption, _U32.pack(material.icv_bits)))
    # Length 0: the kernel's own for that algorithm.
    auth = _attribute(_AUTH, _algorithm(authentication, _U32.pack(0)))
    return auth + _attribute(_CRYPT, _algorithm(encryption, b""))


def _algorithm(algorithm: Algorithm, lengths: bytes) -> bytes:
    name = algorithm.name.encode().ljust(_NAME_BYTES, b"\0")
    return name + _U32.pack(len(algorithm.key) * 8) + lengths + algorithm.key


def delete_state(key: StateId, sequence: int) -> bytes:
    """Remove a state."""
    family = _family(key.receiver)
    body = _STATE_ID.pack(_padded(key.receiver), key.spi.to_bytes(4), family, _ESP)
    body += _attribute(_MARK, _MARK_PAIR.pack(*key.mark))
    return _message(DELETE_STATE, _ACK, sequence, body)


def read_state(body: bytes) -> tuple[StateId, State, int] | None:
    """A state of ESP in tunnel mode with a mark, and the last sequence number it sent."""
    if len(body) < _STATE_BYTES:
        return None
    receiver, spi, protocol = _ID.unpack_from(body, _SELECTOR.size)
    at = _SELECTOR.size + _ID.size
    _, request, family, mode, _, _ = _STATE_TAIL.unpack_from(body, _STATE_BYTES - _STATE_TAIL.size)
    found = _attributes(body[_STATE_BYTES:])
    if (protocol, mode, request) != (_ESP, _TUNNEL, REQUEST_ID) or _MARK not in found:
        return None
    key = StateId(_address(receiver, family), int.from_bytes(spi), _mark(found[_MARK]))
    output = Mark(_number(found, _OUTPUT_MARK), _number(found, _OUTPUT_MASK))
    state = State(_address(body[at : at + 16], family), _read_material(found), output)
    return key, state, _sent(found.get(_REPLAY, b""))


def _mark(data: bytes) -> Mark:
    return Mark(*_MARK_PAIR.unpack_from(data))


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(_U32.unpack_from(found[kind])[0]) if kind in found else 0


def _sent(replay: bytes) -> int:
    if len(replay) < _REPLAY_STATE.size:
        return 0
    _, out, _, out_high, _, _ = _REPLAY_STATE.unpack_from(replay)
    return int(out_high << 32 | out)


def _read_material(found: dict[int, bytes]) -> Material:
    if _AEAD in found:
        algorithm = _read_algorithm(found[_AEAD], 4)
        return Material(algorithm, icv_bits=int(_U32.unpack_from(found[_AEAD], _NAME_BYTES + 4)[0]))
    authentication = _read_algorithm(found[_AUTH], 4) if _AUTH in found else None
    return Material(_read_algorithm(found.get(_CRYPT, bytes(68)), 0), authentication)


def _read_algorithm(data: bytes, lengths: int) -> Algorithm:
    (bits,) = _U32.unpack_from(data, _NAME_BYTES)
    at = _NAME_BYTES + _U32.size + lengths
    name = data[:_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
    return Algorithm(name, bytes(data[at : at + bits // 8]))


# Policies.


def _selector(key: PolicyId) -> bytes:
    source, destination = key.source.network_address, key.destination.network_address
    family = _family(source)
    lengths = key.destination.prefixlen, key.source.prefixlen
    ends = _padded(destination), _padded(source)
    return _SELECTOR.pack(*ends, 0, 0, 0, 0, family, *lengths, 0, 0, 0)


def write_policy(key: PolicyId, policy: Policy, kind: int, sequence: int) -> bytes:
    """Add a policy; ``kind`` says whether one that is there is an error or is replaced."""
    action = _ALLOW if policy.template or policy.passes else _BLOCK
    body = _selector(key) + _LIFETIME + _NOTHING_YET
    body += _POLICY_TAIL.pack(policy.priority, 0, key.direction.value, action, 0, 0)
    if policy.template is not None:
        family = _family(key.source.network_address)
        body += _attribute(_TEMPLATE, _template(policy.template, family))
    if key.mark.mask:
        body += _attribute(_MARK, _MARK_PAIR.pack(*key.mark))
    return _message(kind, _ACK | _CREATE, sequence, body)


def _template(template: Template, family: int) -> bytes:
    fixed = template.sender is not None
    body = _ID.pack(_padded(template.receiver), template.spi.to_bytes(4), _ESP)
    request = REQUEST_ID if fixed else 0
    optional = int(not fixed)
    return body + _TEMPLATE_TAIL.pack(
        *(family, _padded(template.sender), request, _TUNNEL, 0, optional),
        *([_ALL_ALGORITHMS] * 3),
    )


def delete_policy(key: PolicyId, sequence: int) -> bytes:
    """Remove a policy."""
    body = _selector(key) + _POLICY_ID.pack(0, key.direction.value)
    if key.mark.mask:
        body += _attribute(_MARK, _MARK_PAIR.pack(*key.mark))
    return _message(DELETE_POLICY, _ACK, sequence, body)


def read_policy(body: bytes) -> tuple[PolicyId, Policy] | None:
    """A policy between prefixes with its first template; None: of a shape we never write."""
    if len(body) < _POLICY_BYTES:
        return None
    selector = _SELECTOR.unpack_from(body)
    destination, source, family = selector[0], selector[1], selector[6]
    to_length, from_length, protocol = selector[7:10]
    tail = _POLICY_TAIL.unpack_from(body, _POLICY_BYTES - _POLICY_TAIL.size)
    priority, _, direction, action = tail[:4]
    if family not in (_AF_INET, _AF_INET6) or protocol or direction > 1:
        return None
    found = _attributes(body[_POLICY_BYTES:])
    key = PolicyId(
        Direction(direction),
        _prefix(source, from_length, family),
        _prefix(destination, to_length, family),
        _mark(found[_MARK]) if _MARK in found else Mark(0, 0),
    )
    template = _read_template(found[_TEMPLATE]) if _TEMPLATE in found else None
    return key, Policy(priority, template, passes=template is None and action != _BLOCK)


def _prefix(data: bytes, length: int, family: int) -> Prefix:
    return make_prefix(_address(data, family), length)


def _read_template(data: bytes) -> Template:
    receiver, spi, _ = _ID.unpack_from(data)
    family, sender, _, _, _, optional = _TEMPLATE_TAIL.unpack_from(data, _ID.size)[:6]
    if optional:
        return Template()
    return Template(_address(sender, family), _address(receiver, family), int.from_bytes(spi))
