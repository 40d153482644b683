"""Whom etcd trusts: of the authorities that the mesh store trusts, our own. Adapter.

Other clusters meet the front, which trusts theirs. etcd only meets what runs beside it, and
agents of this cluster come through the front as well; so nobody whom another cluster's authority
vouches for has business with etcd itself.
"""

from pathlib import Path

from certs import check
from certs.store import FORMER, NEXT

OWN = ("ca.crt", NEXT, FORMER)


def own_part(bundle: bytes, own: bytes) -> bytes:
    """The certificates of ``bundle`` that are in ``own``, too. Raises ``ValueError``."""
    ours = check.authorities(own)
    found = [pem for name, pem in check.authorities(bundle).items() if name in ours]
    if not found:
        raise ValueError("none of its authorities is our own: run `isthmus clustermesh enable`")
    return b"".join(found)


def write(bundle: str, own: str, directory: str) -> None:
    """Read a bundle and our authorities, write ``ca.crt``. Raises ``OSError``, ``ValueError``.

    The files of ``own`` are those of the Secret ``cilium-ca``. An authority that is of this cluster
    and not in the bundle (any more, or not yet) is not trusted.
    """
    files = [Path(own) / name for name in OWN]
    try:
        ours = b"".join(path.read_bytes() for path in files if path.is_file())
        part = own_part(Path(bundle).read_bytes(), ours)
    except ValueError as error:
        raise ValueError(f"{bundle}: {error}") from error
    Path(directory).mkdir(parents=True, exist_ok=True)
    (Path(directory) / "ca.crt").write_bytes(part)
