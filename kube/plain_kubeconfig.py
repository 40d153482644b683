"""A kubeconfig that holds all that is needed: an address, an authority, a certificate or a token.

That is what kind, kubeadm and k3s write, and whoever has one need not wait for the import of the
official client, which takes as long as most commands. Whatever else stands in the chosen context (a
program to run, a proxy, a renewed token, a file among several) is not ours to understand: the
official client reads it, and words all errors. Adapter (files).
"""

import base64
import ssl
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it was built


class Plain(NamedTuple):
    """What a plain context says."""

    server: str
    ssl: ssl.SSLContext | None  # no TLS: ``kubectl proxy`` and its like
    token: str  # empty: the certificate says who we are


class _Cluster(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    extensions: Any = None


class _User(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""


def read(path: str, context: str) -> Plain | None:
    """A context of a file (empty: the current one); ``None`` when it is not plain, or not right."""
    try:
        whole = yaml.load(Path(path).read_bytes(), Loader=_LOADER)
        chosen = _named(whole, "context", context or whole["current-context"])
        cluster = msgspec.convert(_named(whole, "cluster", chosen["cluster"]), _Cluster)
        user = msgspec.convert(_named(whole, "user", chosen["user"]), _User)
        if cluster.server.startswith("https://"):
            made = _context(Path(path).parent, cluster, user)
        elif cluster.server.startswith("http://") and not _speaks_of_tls(cluster, user):
            made = None
        else:
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return None
    return Plain(cluster.server.rstrip("/"), made, user.token.strip())


def _named(whole: Any, kind: str, name: str) -> Any:
    """The one entry of that name. Raises ``ValueError`` when there are none or several."""
    (found,) = (entry[kind] for entry in whole[f"{kind}s"] if entry["name"] == name)
    return found


def _speaks_of_tls(cluster: _Cluster, user: _User) -> bool:
    return _Cluster(cluster.server, extensions=cluster.extensions) != cluster or (
        _User(token=user.token) != user
    )


def _context(directory: Path, cluster: _Cluster, user: _User) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as scratch:  # nobody else may look into it

        def path(what: str, data: str, name: str) -> str | None:
            """The C library reads from files alone: one beside the kubeconfig, or one of ours."""
            if not data:
                return str(directory / name) if name else None
            file = Path(scratch) / what
            file.write_bytes(base64.b64decode(data, validate=True))
            return str(file)

        made = ssl.create_default_context(
            cafile=path("ca", cluster.certificate_authority_data, cluster.certificate_authority)
        )
        certificate = path("crt", user.client_certificate_data, user.client_certificate)
        if certificate is not None:
            key = path("key", user.client_key_data, user.client_key)
            made.load_cert_chain(certificate, key)
    return made
