"""What is wrong with certificates that one cluster was given for the store of another. Pure.

A cluster that was joined by a token, or declared by an object, has them beside the connection;
nobody renews them by himself, and nothing but the doctor looks at them before they fail.
"""

from datetime import datetime, timedelta

from certs import check
from cli.mesh_examined import Examined
from cli.mesh_findings import Finding


def held(side: Examined, now: datetime) -> list[Finding]:
    """Those that cannot be used, or not for long."""
    found = []
    for name, pair in side.facts.own.items():
        where = f"cluster {side.name}: its certificate for the store of cluster {name}"
        why = check.problem(where, pair["crt"], pair["ca"], now)
        if why:
            text = why.rpartition(": ")[0]
            found.append(Finding("certificate", (side.name, name), text, _remedy(side, name)))
            continue
        left = check.expires_at(pair["crt"]) - now
        if left < check.SOON:
            text = f"{where} expires in {left // timedelta(days=1)} days"
            found.append(
                Finding("certificate", (side.name, name), text, _remedy(side, name), False)
            )
    return found


def trust(a: Examined, b: Examined) -> list[Finding]:
    """When ``a`` reads ``b`` with such a certificate: does each still accept the other's?"""
    pair = a.facts.own.get(b.name)
    if pair is None:
        return []
    found = []
    for what, of, by, pem, bundle in (
        ("server", b, a, b.facts.server.get("tls.crt", b""), pair["ca"]),
        ("client", a, b, pair["crt"], b.facts.server.get("ca.crt", b"")),
    ):
        if not check.is_signed(pem, bundle):
            text = (
                f"cluster {by.name} does not trust the authority that signed the {what} "
                f"certificate of cluster {of.name}"
            )
            found.append(Finding("authority", (a.name, b.name), text, _remedy(a, b.name)))
    return found


def _remedy(side: Examined, name: str) -> str:
    by = side.facts.declared.get(name)
    if by is not None:
        return f"put a new one into the Secret that ClusterMeshPeer {by} names"
    return (
        f"run `isthmus clustermesh grant --name {side.name}` in cluster {name}, and "
        f"`isthmus clustermesh join --replace` in cluster {side.name}"
    )
