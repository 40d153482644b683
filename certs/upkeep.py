"""Certificates that nobody has to be told of: issued when they are due. Adapter (randomness).

Those of Hubble: who meets them reads its trust at each connection and believes the authorities of
all clusters of the mesh, so a certificate of the present authority is good at once.
"""

from collections.abc import Mapping
from datetime import datetime

from certs import check, rotation
from certs.issue import KeyPair, issue
from certs.profiles import Profile


def renewed(
    data: Mapping[str, bytes], authority: KeyPair, profile: Profile, now: datetime
) -> dict[str, bytes] | None:
    """The new data of a Secret; ``None``: it is good as it is. ``ValueError``: no authority.

    The authority before the present one stays believed until the next renewal: what it signed is
    still in use for some seconds.
    """
    if _is_good(data, authority, profile, now):
        return None
    trust = [authority.certificate]
    before = data.get("ca.crt", b"")
    if before:
        try:
            trust += list(check.authorities(before).values())[:1]
        except ValueError:  # somebody's text: not worth keeping
            trust = trust[:1]
    return issue(authority, profile, now).secret_data(check.bundle(*trust))


def _is_good(
    data: Mapping[str, bytes], authority: KeyPair, profile: Profile, now: datetime
) -> bool:
    pem = data.get("tls.crt", b"")
    if not pem or not data.get("tls.key"):
        return False
    if check.problem("", pem, authority.certificate, now):
        return False
    name, names = check.subject(pem)
    issued, expires = check.validity(pem)
    return (
        name == profile.common_name
        and set(profile.names) <= set(names)
        and check.bundle(authority.certificate) in data.get("ca.crt", b"")
        and now < rotation.renewal(issued, expires)
    )
