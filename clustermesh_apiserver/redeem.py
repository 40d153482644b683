"""What the join service does with a token: two answers, and one write. Adapter (API server).

Order matters where a crash may come between. The grant is marked as used, with the answer in it,
before anything else is written; whoever repeats the same request gets the same answer, and what
was not finished is finished then.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from certs import signing
from certs.issue import KeyPair
from certs.profiles import CA_SECRET, REMOTE_SECRET, mesh_profiles, server_host
from certs.store import signer
from clustermesh_apiserver import grants
from clustermesh_apiserver.grants import GRANTS_SECRET, Grant, Grants, Refused
from kube import connections, resources
from kube.connections import Connection
from kube.port import ApiError, Client
from mesh import joining
from wire.join import Hello, Join, Joined, Welcome

log = logging.getLogger("join")


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


class Redeemer:
    """The grants of one cluster; ``grants`` is kept current by whoever watches the Secret."""

    def __init__(
        self, api: Client, namespace: str, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._lock = asyncio.Lock()  # one redemption at a time
        self.grants = Grants({})

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock().timestamp()

    def authority(self) -> str:
        """What our certificate is checked with; public, and pinned by the token. May be empty."""
        latest = max(self.grants.by_id.values(), key=lambda g: g.created, default=None)
        return latest.cluster.authority if latest else ""

    def hello(self, message: Hello) -> Welcome:
        """Who we are and what we want signed. Raises ``Refused``."""
        grant = self.grants.find(message.id, message.secret, self.now())
        return Welcome(grant.cluster, grant.request)

    async def join(self, message: Join) -> Joined:
        """Sign the other's request and connect to it. Raises ``Refused``, ``OSError``."""
        # Before anything costs something: is this a token at all?
        self.grants.find(message.id, message.secret, self.now())
        async with self._lock:
            return await self._join(message)

    async def _join(self, message: Join) -> Joined:
        grant = (await self._read()).find(message.id, message.secret, self.now())
        first = grants.may_redeem(grant, message.cluster, message.request)
        if not first and grant.written:
            return Joined(grant.answer)
        connection = await self._checked(grant, message)
        if first:
            answer = await self._sign(grant, message.request)
            done = grants.redeemed(
                grant, message.cluster, message.request, answer.decode(), self.now()
            )
            await self._replace(grant, done)
            grant = done
        await connections.put(self._api, self._namespace, connection)
        written = msgspec.structs.replace(grant, written=True)
        await self._replace(grant, written, grants.told(grant.cluster, connection.name, self.now()))
        log.info("event=joined grant=%s cluster=%s id=%d", grant.id, connection.name, connection.id)
        return Joined(grant.answer)

    async def _checked(self, grant: Grant, message: Join) -> Connection:
        """The connection to the other side. Raises ``Refused`` with all that is wrong."""
        try:
            peer = message.cluster.peer()
            own = grant.cluster.peer()
            present = await connections.read(self._api, self._namespace)
            by = present.declared.get(peer.name, "")
            if by:
                raise Refused(connections.declared_text(peer.name, by))
            again = peer.name in (grant.peer, grant.redeemed_by)
            if peer.name in present.ids and not again:
                raise Refused(
                    f"cluster {own.name} is already connected to a cluster {peer.name}: disconnect "
                    f"it first, or grant a token with --name {peer.name} to replace the connection"
                )
            problems = joining.problems(own, peer, present.ids)
            if problems:
                raise Refused("; ".join(map(str, problems)))
            trust = signing.check_authorities(message.cluster.authorities())
            pair = KeyPair(grant.request.encode(), grant.key.encode())
            name = mesh_profiles(own.name)[REMOTE_SECRET].common_name
            signing.check_signed(message.certificate.encode(), pair, trust, name, self._clock())
        except Refused:
            raise
        except ValueError as error:
            raise Refused(f"the joining cluster says what cannot be: {error}") from error
        parts = {"ca": trust, "crt": message.certificate.encode(), "key": pair.key}
        files = connections.credential_base(peer.name)
        config = connections.store_config(
            server_host(peer.name), message.cluster.port, tuple(message.cluster.addresses), files
        )
        return Connection(peer.name, peer.id, config, parts, grant.own_store.encode())

    async def _sign(self, grant: Grant, request: str) -> bytes:
        found = await self._api.get(resources.SECRETS, CA_SECRET, self._namespace)
        try:
            chosen = grant.cluster.following or grant.cluster.authority
            ca = signer(chosen.encode(), found.data or {})
            if ca is None:
                raise Refused(
                    "the authority was replaced since this token was granted: ask for a new one"
                )
            profile = mesh_profiles(grant.cluster.name)[REMOTE_SECRET]
            return signing.sign_request(ca, request.encode(), profile, self._clock())
        except Refused:
            raise
        except ValueError as error:
            raise Refused(str(error)) from error

    async def _read(self) -> Grants:
        try:
            found = await self._api.get(resources.SECRETS, GRANTS_SECRET, self._namespace)
        except ApiError as error:
            if error.not_found:
                return Grants({})
            raise
        return grants.parse(found.data or {})

    async def _replace(
        self, before: Grant, after: Grant, beside: Mapping[str, bytes] | None = None
    ) -> None:
        """Write one grant, unless it is not what it was: revoked, or used by somebody else.

        ``beside``: other keys of the same Secret.
        """
        kind = resources.untyped(resources.SECRETS)
        while True:
            found = await self._api.get(kind, GRANTS_SECRET, self._namespace)
            data = dict(found.get("data") or {})
            encoded = data.get(before.id, "")
            if base64.b64decode(encoded) != grants.encode(before):
                raise Refused("this token was revoked or used meanwhile: ask for a new one")
            fresh = {**(beside or {}), before.id: grants.encode(after)}
            data |= {key: base64.b64encode(value).decode() for key, value in fresh.items()}
            try:
                await self._api.update(kind, {**found, "data": data}, namespace=self._namespace)
                return
            except ApiError as error:
                if not error.conflict:
                    raise
