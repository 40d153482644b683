"""A new key of IPsec for a mesh: which secret each cluster gets, and how far nodes are. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cli.encrypt_mesh import SECRET, Member, away, refusal
from encryption.ipsec_keys import KeyFileError, MeshKey, following, parse_secret
from encryption.migration import Kind


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, and where."""

    secret: str
    lacking: tuple[Member, ...]

    @property
    def key_id(self) -> int:
        """Of the new key."""
        return parse_secret(self.secret)[-1].id


def plan(members: Sequence[Member], random: Callable[[int], bytes]) -> Plan:
    """A new key for all clusters; or, when a call was killed between two, the rest of that.

    Raises ``ValueError`` with what stands in the way.
    """
    found = [*away(members), *_obstacles(members)]
    if found:
        raise ValueError(refusal(found))
    texts = sorted({(m.secret or b"").decode(errors="replace") for m in members})
    keys = {text: _keys(text, members) for text in texts}
    if len(texts) == 1:
        waits = list(unsettled(members, keys[texts[0]][-1].id))
        if waits:
            raise ValueError(
                refusal([f"another rotation is under way, and goes on by itself: {waits[0]}"])
            )
        return Plan(following(texts[0], random), tuple(members))
    for old, new in (texts, texts[::-1]) if len(texts) == 2 else ():
        if len(keys[new]) > 1 and keys[new][-2] == keys[old][-1]:
            lacking = [m for m in members if m.secret == old.encode()]
            return Plan(new, tuple(lacking))
    raise ValueError(
        refusal([f"the clusters' secrets {SECRET} differ: write the same into all of them"])
    )


def _keys(text: str, members: Sequence[Member]) -> tuple[MeshKey, ...]:
    try:
        return parse_secret(text)
    except KeyFileError as error:
        names = ", ".join(m.name for m in members if m.secret == text.encode())
        raise ValueError(refusal([f"secret {SECRET} of {names}: {error}"])) from None


def _obstacles(members: Sequence[Member]) -> Iterator[str]:
    names = {member.name for member in members}
    others: set[str] = set()
    for member in members:
        if member.stance.sends is not Kind.IPSEC:
            yield f"cluster {member.name} does not encrypt by IPsec: leave its context out"
        elif member.secret is None:
            yield f"cluster {member.name} has no secret {SECRET}: docs/ipsec.md says how to make it"
        for peer in _peers(member):
            if peer["key-id"]:
                others.add(str(peer["node"]).partition("/")[0])
    for name in sorted(others - names):
        yield f"cluster {name} encrypts by this key, too: name its context with --also"


def _peers(member: Member) -> Iterator[Any]:
    for answer in member.answers.values():
        yield from answer.get("ipsec", {}).get("peers", ())


def unsettled(members: Sequence[Member], key_id: int) -> Iterator[str]:
    """What nodes still do with another key; those that do not answer, too."""
    for member in members:
        for node, why in sorted(member.silent.items()):
            yield f"node {member.name}/{node} does not answer ({why})"
        for node, answer in sorted(member.answers.items()):
            found = answer.get("ipsec")
            if found is None:
                yield f"node {member.name}/{node} has not begun with IPsec"
            elif found["current-key-id"] != key_id:
                yield f"node {member.name}/{node} has key {found['current-key-id']}"
            for peer in found["peers"] if found else ():
                if peer["key-id"] and peer["sends-with"] != key_id:
                    yield (
                        f"node {member.name}/{node} sends to {peer['node']} with key "
                        f"{peer['sends-with']}"
                    )
