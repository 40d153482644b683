"""Who a bearer token stands for: tokens of a file, and those we issue to service accounts.

Pure; the clock is an argument. Issued tokens are JSON Web Tokens signed with HMAC-SHA256 under a
key that lies in the store, so a restarted server knows them again.
"""

import base64
import binascii
import csv
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

import msgspec

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
_HEADER = {"alg": "HS256", "typ": "JWT"}


@dataclass(frozen=True, slots=True)
class User:
    """The author of a request."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict, hash=False)


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))


def parse_token_file(text: str) -> dict[str, User]:
    """``token,user,uid[,"group1,group2"]`` per line. Raises ``ValueError`` naming the line."""
    out = {}
    for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3 or not row[0]:
            raise ValueError(
                f"line {number} of the token file has {len(row)} columns: "
                "write token,user,uid and optionally groups"
            )
        groups = tuple(g for part in row[3:] for g in part.split(",") if g)
        out[row[0]] = User(row[1], row[2], (*groups, "system:authenticated"))
    return out


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _sign(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def issue(
    key: bytes,
    namespace: str,
    account: str,
    uid: str,
    now_s: int,
    lifetime_s: int,
    audiences: list[str],
    bound: dict[str, Any] | None = None,
) -> str:
    """A token for a service account; ``bound`` names the pod it is made for."""
    kubernetes: dict[str, Any] = {
        "namespace": namespace,
        "serviceaccount": {"name": account, "uid": uid},
    }
    if bound:
        kubernetes["pod"] = bound
    claims = {
        "aud": audiences or [AUDIENCE],
        "exp": now_s + lifetime_s,
        "iat": now_s,
        "nbf": now_s,
        "iss": AUDIENCE,
        "kubernetes.io": kubernetes,
        "sub": f"system:serviceaccount:{namespace}:{account}",
    }
    text = f"{_b64(msgspec.json.encode(_HEADER))}.{_b64(msgspec.json.encode(claims))}"
    return f"{text}.{_b64(_sign(key, text))}"


def verify(key: bytes, token: str, now_s: int) -> User | None:
    """The service account of a token of ours that is still valid."""
    text, _, signature = token.rpartition(".")
    try:
        if not hmac.compare_digest(_unb64(signature), _sign(key, text)):
            return None
        claims = msgspec.json.decode(_unb64(text.partition(".")[2]))
    except (binascii.Error, ValueError):
        return None
    if claims["exp"] < now_s:
        return None
    found = claims["kubernetes.io"]
    account, namespace = found["serviceaccount"], found["namespace"]
    return User(
        claims["sub"],
        account["uid"],
        ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
    )
