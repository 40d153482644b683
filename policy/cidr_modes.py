"""Whom of the mesh rules of prefixes select by address: `policy-cidr-match-mode`. Pure."""

from enum import StrEnum

from model.identity import ReservedIdentity


class CidrMode(StrEnum):
    """Who is selected, beside what is outside of the mesh."""

    NODES = "nodes"
    PODS = "pods"


_NODES = {
    ReservedIdentity.HOST,
    ReservedIdentity.REMOTE_NODE,
    ReservedIdentity.KUBE_APISERVER,
}
_NOBODY = {
    ReservedIdentity.UNKNOWN,
    ReservedIdentity.WORLD,
    ReservedIdentity.WORLD_IPV4,
    ReservedIdentity.WORLD_IPV6,
}
_SCOPE_BITS = 24
_SCOPE_PREFIXES, _SCOPE_NODES = 1, 2


def cidr_mode(identity: int) -> CidrMode | None:
    """The mode in which rules of prefixes select an identity's addresses; ``None``: these are the
    world's, or nobody knows whose."""
    scope = identity >> _SCOPE_BITS
    if identity in _NODES or scope == _SCOPE_NODES:
        return CidrMode.NODES
    return None if identity in _NOBODY or scope == _SCOPE_PREFIXES else CidrMode.PODS


def parse_cidr_modes(text: str) -> frozenset[CidrMode]:
    """The modes of a list. Raises ``ValueError``."""
    try:
        return frozenset(CidrMode(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise ValueError("use nodes, pods, or both with a comma between them") from None
