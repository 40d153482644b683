"""Renews the certificates of the mesh before they expire. Adapter; rules are ``certs.rotation``.

Only what the present authority has signed, and signs again: nobody has to learn anything for that.
A new authority concerns other clusters and stays with ``isthmus certs rotate --ca``; while such a
rotation is under way nothing is done here.
"""

import base64
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from certs import check, rotation, upkeep
from certs.issue import KeyPair
from certs.profiles import CA_SECRET, SERVER_SECRET, Profile
from certs.store import CertificateStore, Place
from kube.port import ApiError, Client
from kube.resources import SECRETS, untyped

log = logging.getLogger("operator.certificates")


@dataclass(frozen=True, slots=True)
class ClusterSecrets:
    """``certs.store.Secrets`` of the operator's own cluster."""

    client: Client
    namespace: str

    async def read(self, name: str) -> Mapping[str, bytes]:
        try:
            found = await self.client.get(untyped(SECRETS), name, self.namespace)
        except ApiError as error:
            if not error.not_found:
                raise
            return {}
        return {k: base64.b64decode(v) for k, v in (found.get("data") or {}).items()}

    async def write(self, name: str, data: Mapping[str, bytes | None]) -> None:
        change = {k: None if v is None else base64.b64encode(v).decode() for k, v in data.items()}
        await self.client.patch(untyped(SECRETS), name, {"data": change}, self.namespace)


class HubbleRenewer:
    """The same for the certificates of Hubble, where there are any."""

    def __init__(self, client: Client, namespace: str, profiles: Mapping[str, Profile]) -> None:
        self._secrets = ClusterSecrets(client, namespace)
        self._profiles = profiles
        self.expires: dict[str, datetime] = {}  # by Secret
        self.renewed: Counter[str] = Counter()

    async def renew(self, now: datetime) -> None:
        """Raises ``OSError``, and ``ValueError`` naming a Secret that cannot be used."""
        self.expires.clear()
        signs = await self._secrets.read(CA_SECRET)
        for name, profile in self._profiles.items():
            data = await self._secrets.read(name)
            if not data or not signs.get("ca.key"):
                continue
            try:
                pair = KeyPair(signs["ca.crt"], signs["ca.key"])
                made = upkeep.renewed(data, pair, profile, now)
                if made is not None:
                    await self._secrets.write(name, made)
                    self.renewed[name] += 1
                    log.info("event=renewed secret=%s", name)
                self.expires[name] = check.expires_at((made or data)["tls.crt"])
            except ValueError as error:
                raise ValueError(f"Secret {name} or {CA_SECRET}: {error}") from error


class Renewer:
    """One round looks at every certificate of the mesh."""

    def __init__(
        self, client: Client, namespace: str, cluster: str, profiles: Mapping[str, Profile]
    ) -> None:
        self._secrets = ClusterSecrets(client, namespace)
        self._cluster = cluster
        self._profiles = profiles
        self.expires: dict[str, datetime] = {}  # by Secret
        self.renewed: Counter[str] = Counter()

    async def renew(self, now: datetime) -> None:
        """Raises ``OSError``, and ``ValueError`` naming a Secret that cannot be used."""
        if not await self._secrets.read(SERVER_SECRET):
            self.expires.clear()  # this cluster is in no mesh
            return
        store = CertificateStore({self._cluster: Place(self._secrets, self._profiles)})
        (member,) = await store.read()
        for secret, stored in member.secrets.items():
            if member.next or member.former or not _ends(stored, member.authority, now):
                continue
            await store.carry_out(rotation.Issue(self._cluster, secret, "it expires"), now)
            self.renewed[secret] += 1
            log.info("event=renewed secret=%s expired=%s", secret, stored.expires)
        (member,) = await store.read()
        self.expires = {s: c.expires for s, c in member.secrets.items() if c.expires is not None}
        authority = (await self._secrets.read(CA_SECRET))["ca.crt"]
        self.expires[CA_SECRET] = check.expires_at(authority)
        if self.expires[CA_SECRET] - now < check.SOON:
            log.warning(
                "event=authority-expires secret=%s at=%s: run `isthmus certs rotate --ca`",
                CA_SECRET,
                self.expires[CA_SECRET],
            )


def _ends(stored: rotation.Stored, authority: rotation.Authority, now: datetime) -> bool:
    if stored.issuer != authority or stored.issued is None or stored.expires is None:
        return False  # somebody else's, or none: not for us to replace
    return now >= rotation.renewal(stored.issued, stored.expires)
