"""A kubeconfig that holds all that is needed: an address, an authority, a certificate or a token.

That is what kind, kubeadm and k3s write, and whoever has one need not wait for the import of the
official client, which takes as long as most commands. Whatever else stands in the chosen context (a
program to run, a proxy, a renewed token, a file among several) is not ours to understand: the
official client reads it, and words all errors. Adapter (files).
"""

import base64
import ssl
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it was built


class Plain(NamedTuple):
    """What a plain context says."""

    server: str  # https
    ssl: ssl.SSLContext
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
        if not cluster.server.startswith("https://"):
            return None
        made = _context(Path(path).parent, cluster, user)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return None
    return Plain(cluster.server.rstrip("/"), made, user.token.strip())


def _named(whole: Any, kind: str, name: str) -> Any:
    """The one entry of that name. Raises ``ValueError`` when there are none or several."""
    (found,) = (entry[kind] for entry in whole[f"{kind}s"] if entry["name"] == name)
    return found


def _context(directory: Path, cluster: _Cluster, user: _User) -> ssl.SSLContext:
    with ExitStack() as stack:
        files = _Files(directory, stack)
        authority = files.path(cluster.certificate_authority_data, cluster.certificate_authority)
        made = ssl.create_default_context(cafile=authority)
        certificate = files.path(user.client_certificate_data, user.client_certificate)
        key = files.path(user.client_key_data, user.client_key)
        if certificate is not None:
            made.load_cert_chain(certificate, key)
    return made


class _Files:
    """The C library reads certificates from files alone."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory, self._stack = directory, stack

    def path(self, data: str, name: str) -> str | None:
        """Of what is given as base64, or of a file beside the kubeconfig."""
        if not data:
            return str(self._directory / name) if name else None
        # Ours alone to read, and gone with the block.
        file = self._stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115
        file.write(base64.b64decode(data, validate=True))
        file.flush()
        return file.name
