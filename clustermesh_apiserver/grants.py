"""Join tokens that this cluster has given out, and what became of each. Pure; the clock is given.

All of them live in one Secret, one key per grant, so that the join service may be allowed to read
and write that one object. Of a token's secret only a hash is kept. Beside the grants stands, for
each cluster that was joined, which of our authorities it was told.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from certs import check
from wire.join import Introduction, secret_digest

GRANTS_SECRET = "clustermesh-join-grants"
TTL_LIMIT_S = 24 * 3600
# An expired one is remembered for a while: whoever brings it is told that, and not "unknown".
REMEMBER_S = 3600
TOLD = "told."  # a key: this and the name of a cluster; no grant's ID has a dot


class Refused(ValueError):
    """A token that opens nothing; the text is for whoever brought it."""


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token. Times are seconds since 1970."""

    id: str
    created: float
    expires: float
    secret_digest: str
    cluster: Introduction  # ours, as at the time of granting
    request: str  # what the other side is to sign for us, PEM
    key: str  # the key of that request; never leaves this cluster
    peer: str = ""  # the only cluster that may come; empty: any
    own_store: str = ""  # with KVStoreMesh: how our agents reach our own store
    redeemed: float = 0.0
    redeemed_by: str = ""
    redeemed_id: int = 0
    request_digest: str = ""  # of what was brought; the very same may come again
    answer: str = ""  # the certificate that was given, PEM
    written: bool = False  # the connection to the other side is written

    def __repr__(self) -> str:
        return f"Grant(id={self.id!r}, state={self.redeemed_by or 'open'!r}, keys=hidden)"

    def state(self, now: float) -> str:
        """One word for a listing."""
        if self.redeemed:
            return "redeemed"
        return "expired" if now >= self.expires else "open"


class Told(msgspec.Struct, frozen=True):
    """What a joined cluster holds of ours: it trusts these, and the last of them signed for it."""

    authorities: list[str]  # subject key identifiers
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Grants:
    """What the Secret holds, by ID; ``problems`` names keys that cannot be read."""

    by_id: Mapping[str, Grant]
    problems: tuple[str, ...] = ()
    told: Mapping[str, Told] = field(default_factory=dict)  # by cluster

    def live(self, now: float) -> bool:
        """Is there a reason to listen?"""
        return any(now < grant.expires for grant in self.by_id.values())

    def next_change(self, now: float) -> float | None:
        """When the next one expires."""
        return min((g.expires for g in self.by_id.values() if g.expires > now), default=None)

    def find(self, identifier: str, secret: str, now: float) -> Grant:
        """The grant of a token. Raises ``Refused``.

        Unknown ID and wrong secret are one answer, and the comparison takes the same time for
        both, so that guessing teaches nothing.
        """
        grant = self.by_id.get(identifier)
        wanted = grant.secret_digest if grant else secret_digest("")
        same = hmac.compare_digest(wanted, secret_digest(secret))
        if grant is None or not same:
            raise Refused(
                "this token is not known: it was revoked, or is of another cluster; ask for a new "
                "one (`isthmus clustermesh grant`)"
            )
        if now >= grant.expires:
            raise Refused("this token has expired: ask for a new one (`isthmus clustermesh grant`)")
        return grant


def parse(data: Mapping[str, bytes]) -> Grants:
    """The Secret's data."""
    found: dict[str, Grant] = {}
    known: dict[str, Told] = {}
    problems = []
    for name, value in data.items():
        try:
            if name.startswith(TOLD):
                known[name.removeprefix(TOLD)] = msgspec.json.decode(value, type=Told)
            else:
                found[name] = msgspec.json.decode(value, type=Grant)
        except msgspec.MsgspecError as error:
            problems.append(f"Secret {GRANTS_SECRET}: {name} cannot be read: {error}: revoke it")
    return Grants(found, tuple(problems), known)


def encode(grant: Grant) -> bytes:
    """A key's value."""
    return msgspec.json.encode(grant)


def told(own: Introduction, peer: str, now: float) -> dict[str, bytes]:
    """The key that says what a cluster holds of us after it was joined."""
    held = Told(list(check.authorities(own.authorities())), now)
    return {TOLD + peer: msgspec.json.encode(held)}


def outdated(grants: Grants, now: float) -> list[str]:
    """Those to be forgotten."""
    return [g.id for g in grants.by_id.values() if now >= g.expires + REMEMBER_S]


def brought(request: str, peer: Introduction) -> str:
    """What tells one redemption from another: who came, and with which request."""
    return sha256(msgspec.json.encode([peer.name, peer.id, request])).hexdigest()


def may_redeem(grant: Grant, peer: Introduction, request: str) -> bool:
    """True for the first time, False for the very same again. Raises ``Refused``."""
    if grant.peer and grant.peer != peer.name:
        raise Refused(
            f"this token was granted to cluster {grant.peer}, and this is {peer.name}: "
            "ask for one of its own"
        )
    if not grant.redeemed:
        return True
    if hmac.compare_digest(grant.request_digest, brought(request, peer)):
        return False
    raise Refused(
        f"this token was used already, by cluster {grant.redeemed_by}: "
        "ask for a new one (`isthmus clustermesh grant`)"
    )


def redeemed(grant: Grant, peer: Introduction, request: str, answer: str, now: float) -> Grant:
    """The grant after its one redemption."""
    return msgspec.structs.replace(
        grant,
        redeemed=now,
        redeemed_by=peer.name,
        redeemed_id=peer.id,
        request_digest=brought(request, peer),
        answer=answer,
    )


@dataclass(slots=True)
class Bucket:
    """How often an address may ask: a few at once, then so many per second."""

    tokens: float
    at: float


class Allowance:
    """Requests by address, and of all together; addresses that were not seen lately are forgotten.

    A stranger who asks too often spends his own allowance and then meets a bound on all strangers.
    """

    RATE, BURST = 5.0, 30.0  # per second, at once; of one address
    TOTAL_RATE, TOTAL_BURST = 50.0, 100.0
    ADDRESSES = 1024

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._total = Bucket(self.TOTAL_BURST, 0.0)

    def take(self, address: str, now: float) -> bool:
        """May this one be answered? ``now`` is seconds of any clock."""
        bucket = self._buckets.pop(address, None) or Bucket(self.BURST, now)
        self._buckets[address] = bucket  # the end of the dict is the latest
        if len(self._buckets) > self.ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        return _take(bucket, self.RATE, self.BURST, now) and _take(
            self._total, self.TOTAL_RATE, self.TOTAL_BURST, now
        )


def _take(bucket: Bucket, rate: float, burst: float, now: float) -> bool:
    bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
    bucket.at = now
    if bucket.tokens < 1:
        return False
    bucket.tokens -= 1
    return True
