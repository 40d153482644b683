"""The certificates of a mesh as they lie in Secrets, and the steps of a plan on them. Adapter.

The Secret of the authority keeps a rotation's place: beside ``ca.crt`` and ``ca.key`` there are the
authority that will sign next, with its key, and the certificates of those that signed until lately.
The key of a former authority is destroyed in the moment in which the next one takes over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from certs import check, rotation
from certs.issue import BACKDATE, KeyPair, create_ca, issue
from certs.profiles import CA_SECRET, Profile
from certs.rotation import Authority, Member, Stored

NEXT, NEXT_KEY, FORMER = "next-ca.crt", "next-ca.key", "former-ca.crt"


class Secrets(Protocol):
    """The Secrets of one cluster."""

    async def read(self, name: str) -> Mapping[str, bytes]:
        """What a Secret holds; empty when there is none."""
        ...

    async def write(self, name: str, data: Mapping[str, bytes | None]) -> None:
        """Set these keys at once and leave the others; ``None`` removes a key."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """One cluster: where its Secrets are, and which certificates it needs."""

    secrets: Secrets
    profiles: Mapping[str, Profile]


class CertificateStore:
    """The certificates of all clusters that rotate together."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._known: dict[Authority, bytes] = {}

    async def read(self) -> list[Member]:
        """What is stored. What processes have loaded is not known here.

        Raises ``ValueError`` naming the cluster that has no authority, or an unusable Secret.
        """
        found = {
            name: {s: await place.secrets.read(s) for s in (CA_SECRET, *place.profiles)}
            for name, place in self._places.items()
        }
        for name, secrets in found.items():
            for secret, data in secrets.items():
                for key in ("ca.crt", NEXT, FORMER):
                    self._known |= _authorities(f"{name}: Secret {secret}", data.get(key, b""))
        return [self._member(name, secrets) for name, secrets in found.items()]

    async def prepare(self, member: Member, now: datetime) -> None:
        """Make the authority that is to sign next, unless a rotation is under way."""
        if member.next or member.former:
            return
        data = await self._places[member.name].secrets.read(CA_SECRET)
        name, _ = check.subject(data["ca.crt"])
        made = create_ca(now, name)
        await self._write(member.name, CA_SECRET, {NEXT: made.certificate, NEXT_KEY: made.key})

    async def carry_out(self, step: rotation.Step, now: datetime) -> None:
        """Everything but ``Restart``, which is not about Secrets."""
        secrets = self._places[step.member].secrets
        match step:
            case rotation.Trust(member, secret, authorities):
                data = await secrets.read(secret)
                own = _authorities(member, (await secrets.read(CA_SECRET))["ca.crt"])
                order = [*own, *_authorities(member, data.get("ca.crt", b"")), *sorted(authorities)]
                pem = [self._known[a] for a in dict.fromkeys(order) if a in authorities]
                await self._write(member, secret, {"ca.crt": check.bundle(*pem)})
            case rotation.Issue(member, secret, _):
                await self._issue(member, secret, now)
            case rotation.Promote(member):
                data = await secrets.read(CA_SECRET)
                former = check.bundle(data["ca.crt"], data.get(FORMER, b"") or data["ca.crt"])
                change: dict[str, bytes | None] = {
                    "ca.crt": data[NEXT],
                    "ca.key": data[NEXT_KEY],
                    FORMER: former,
                    NEXT: None,
                    NEXT_KEY: None,
                }
                if "tls.crt" in data:  # some tools look for the authority there
                    change |= {"tls.crt": data[NEXT], "tls.key": data[NEXT_KEY]}
                await self._write(member, CA_SECRET, change)
            case rotation.Forget(member):
                await self._write(member, CA_SECRET, {FORMER: None})
            case rotation.Restart():
                raise TypeError("a store is started anew by whoever runs it")

    def strangers(self, members: Sequence[Member]) -> dict[str, set[Authority]]:
        """By cluster, authorities in its bundles that are of none of these clusters."""
        known = frozenset[Authority]().union(*(m.authorities for m in members))
        found = {
            m.name: set(
                frozenset[Authority]().union(*(s.trust for s in m.secrets.values())) - known
            )
            for m in members
        }
        return {name: strange for name, strange in found.items() if strange}

    async def _issue(self, member: str, secret: str, now: datetime) -> None:
        place = self._places[member]
        authority = await place.secrets.read(CA_SECRET)
        data = await place.secrets.read(secret)
        profile = place.profiles[secret]
        if data.get("tls.crt"):  # names that somebody added stay
            _, names = check.subject(data["tls.crt"])
            profile = replace(profile, names=tuple(dict.fromkeys((*profile.names, *names))))
        pair = issue(KeyPair(authority["ca.crt"], authority["ca.key"]), profile, now)
        trust = data.get("ca.crt") or authority["ca.crt"]
        await self._write(member, secret, pair.secret_data(trust))

    async def _write(self, member: str, name: str, data: Mapping[str, bytes | None]) -> None:
        await self._places[member].secrets.write(name, data)

    def _member(self, name: str, secrets: Mapping[str, Mapping[str, bytes]]) -> Member:
        data = secrets[CA_SECRET]
        if not data.get("ca.crt") or not data.get("ca.key"):
            raise ValueError(
                f"{name}: Secret {CA_SECRET} has no ca.crt or no ca.key: run "
                "`isthmus clustermesh enable`, or let the tool that keeps the key rotate"
            )
        profiles = self._places[name].profiles
        (authority, *_) = _authorities(name, data["ca.crt"])
        (following, *_) = [*_authorities(name, data.get(NEXT, b"")), ""]
        return Member(
            name,
            authority,
            {s: self._stored(f"{name}: Secret {s}", secrets[s], profiles[s]) for s in profiles},
            next=following,
            former=frozenset(_authorities(name, data.get(FORMER, b""))) - {authority},
            wanted=frozenset(profiles),
        )

    def _stored(self, where: str, data: Mapping[str, bytes], profile: Profile) -> Stored:
        trust = frozenset(_authorities(where, data.get("ca.crt", b"")))
        try:
            pem = data["tls.crt"]
            issued, expires = check.validity(pem)
            common_name, names = check.subject(pem)
        except (KeyError, ValueError):
            return Stored(trust=trust)
        if not data.get("tls.key"):
            return Stored(trust=trust)
        as_wanted = common_name == profile.common_name and set(names) >= set(profile.names)
        signer = check.issuer(pem, self._known)
        return Stored(signer, trust, issued + BACKDATE, expires, as_wanted)


def signer(certificate: bytes, data: Mapping[str, bytes]) -> KeyPair | None:
    """The pair of one authority, in the data of the Secret of authorities: present or next."""
    for pem, key in (("ca.crt", "ca.key"), (NEXT, NEXT_KEY)):
        if certificate and data.get(key) and data.get(pem, b"").strip() == certificate.strip():
            return KeyPair(data[pem], data[key])
    return None


def _authorities(where: str, pem: bytes) -> dict[Authority, bytes]:
    try:
        return check.authorities(pem) if pem else {}
    except ValueError as error:
        raise ValueError(f"{where}: ca.crt is no PEM bundle ({error}): issue it anew") from error
