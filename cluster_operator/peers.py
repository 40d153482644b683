"""Connects this cluster to the peers declared by ClusterMeshPeer objects. Adapter.

What is to be is decided in ``cluster_operator.declared``. A connection carries the mark of the
object that made it, so nothing has to hold up a deletion: a mark without its object is a connection
to be removed, also when the object went while we were away. Whether a peer is reached is tried from
here, by the same files that agents are given.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from certs import check, signing
from certs.profiles import REMOTE_SECRET, server_host
from cluster_operator import declared
from cluster_operator.config import Settings
from cluster_operator.declared import Own, Problem, Wanted
from kube import connections, own_store
from kube.connections import ClaimedError, Connection
from kube.informer import Informer
from kube.port import ApiError, Client
from kube.resources import CLUSTER_MESH_PEERS, SECRETS
from kvstore.config_directory import ConfigDirectory
from kvstore.decoding import Change
from kvstore.remotes import Remotes
from model.cluster import ClusterId, ClusterName
from reconcile.tasks import TaskGroup
from wire.etcd import keys
from wire.k8s.cluster_mesh_peer import ClusterMeshPeerObject, PeerStatus
from wire.k8s.core import Secret

log = logging.getLogger("operator.peers")

PEERS_NAMESPACE = "isthmus-peers"  # of the Secrets that objects refer to
STEP_S = 1.0  # between looks at the connections
ROUND_S = 30.0  # what is not watched: certificates that end, nodes that run our own store
AGE_EVERY_S = 60.0  # how often an age by itself is worth a write
PARTS = {"ca": "ca.crt", "crt": "tls.crt", "key": "tls.key"}


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


class _Nothing:
    """``kvstore.remote.Sink``: that it can be read is of interest, not what is read."""

    def on_changes(self, cluster: ClusterName, resource: str, changes: Sequence[Change]) -> None:
        """Nothing is done with it."""

    def on_synced(self, cluster: ClusterName, resource: str) -> None:
        """As above."""

    def on_removed(self, cluster: ClusterName) -> None:
        """As above."""

    def on_revoked(self, cluster: ClusterName) -> None:
        """As above."""


class Controller:
    """All declared peers of this cluster."""

    def __init__(
        self, client: Client, settings: Settings, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._client = client
        self._namespace = settings.k8s_namespace
        self._clock = clock
        self._own = Own(settings.cluster_name, settings.cluster_id, settings.max_connected_clusters)
        name = ClusterName(settings.cluster_name)
        self.remotes = Remotes(
            ConfigDirectory(Path(settings.clustermesh_config), name),
            _Nothing(),
            name,
            ClusterId(settings.cluster_id),
            settings.max_connected_clusters,
            wanted=lambda _: (keys.NODES,),  # the smallest that every cluster publishes
        )
        self._peers = Informer(client, CLUSTER_MESH_PEERS, self._on_change)
        self._secrets = Informer(client, SECRETS, self._on_change, namespace=PEERS_NAMESPACE)
        self._written = [
            Informer(
                client,
                SECRETS,
                self._on_change,
                namespace=self._namespace,
                field_selector=f"metadata.name={name}",
            )
            for name in (connections.CLUSTERS_SECRET, connections.KVSTOREMESH_SECRET)
        ]
        self._changed = asyncio.Event()
        self._problems: dict[str, Problem] = {}
        self._wanted: Mapping[str, Wanted] = {}
        self._told: dict[str, float] = {}  # object -> when its status was written, loop's clock

    async def _on_change(self, old: object, new: object) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._peers.run())
            tasks.create_task(self._secrets.run())
            for informer in self._written:
                tasks.create_task(informer.run())
            await self._peers.synced.wait()
            await self._secrets.synced.wait()
            await self._until_declared()
            tasks.create_task(self.remotes.run())
            await self._keep()

    async def _until_declared(self) -> None:
        """Clusters without objects cost no connection; marks left behind do not wait, though."""
        while not self._peers.store:
            self._changed.clear()
            try:
                marked = (await connections.read(self._client, self._namespace)).declared
                if marked:
                    return
                await self._changed.wait()
            except OSError as error:
                log.warning('event=failed error="%s"', error)
                await asyncio.sleep(STEP_S)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            if self._changed.is_set() or loop.time() >= due:
                self._changed.clear()
                due = loop.time() + ROUND_S
                try:
                    await self._bring_up()
                except OSError as error:
                    log.warning('event=failed error="%s"', error)
                    due = loop.time() + STEP_S
            await self._say_all()
            try:
                async with asyncio.timeout(STEP_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    # What is done.

    async def _bring_up(self) -> None:
        present = await connections.read(self._client, self._namespace)
        plan = declared.plan(self._peers.store.values(), self._own, present.ids, present.declared)
        for cluster in plan.gone:
            await connections.drop(self._client, self._namespace, cluster)
            log.info("event=disconnected cluster=%s", cluster)
        self._problems, self._wanted = dict(plan.problems), plan.wanted
        if not plan.wanted:
            return
        here = b""
        if await own_store.has_kvstoremesh(self._client, self._namespace):
            hosts = await own_store.hosts(self._client, self._namespace)
            here = own_store.config(self._namespace, hosts)
        for name, wanted in plan.wanted.items():
            try:
                connection = replace(await self._connection(name, wanted), own_store=here)
                if await connections.put(self._client, self._namespace, connection):
                    log.info("event=connected cluster=%s object=%s", wanted.name, name)
            except ClaimedError as error:
                self._problems[name] = Problem("Conflict", str(error))
            except ValueError as error:
                self._problems[name] = Problem("InvalidSecret", str(error))

    async def _connection(self, name: str, wanted: Wanted) -> Connection:
        """Raises ``ValueError`` for a Secret that cannot be used, ``OSError``."""
        parts: Mapping[str, bytes] = {}
        files = "common-etcd-client"
        if wanted.secret:
            parts = self._credentials(wanted.secret)
            files = connections.credential_base(wanted.name)
        else:
            await self._common()
        config = connections.store_config(
            server_host(wanted.name), wanted.port, wanted.hosts, files
        )
        return Connection(
            wanted.name, wanted.id, config, parts, cache_ttl=wanted.cache_ttl, declared_by=name
        )

    def _credentials(self, secret: str) -> dict[str, bytes]:
        where = f"spec.secretRef: Secret {PEERS_NAMESPACE}/{secret}"
        found = self._secrets.store.get((PEERS_NAMESPACE, secret))
        if found is None:
            raise ValueError(f"{where} does not exist: create it with {', '.join(PARTS.values())}")
        return usable(found, where, self._clock())

    async def _common(self) -> None:
        try:
            await self._client.get(SECRETS, REMOTE_SECRET, self._namespace)
        except ApiError as error:
            if not error.not_found:
                raise
            raise ValueError(
                f"spec.secretRef is left out and there is no Secret {self._namespace}/"
                f"{REMOTE_SECRET}: name a Secret with certificates, or run "
                "`isthmus clustermesh enable`"
            ) from error

    # What is said.

    async def _say_all(self) -> None:
        for (_, name), peer in list(self._peers.store.items()):
            try:
                await self._say(name, peer)
            except OSError as error:
                log.warning('event=failed object=%s error="%s"', name, error)

    async def _say(self, name: str, peer: ClusterMeshPeerObject) -> None:
        problem, age = self._problems.get(name), ""
        wanted = self._wanted.get(name)
        if problem is None and wanted is None:
            return  # not looked at yet
        if wanted is not None:
            said, age = self._reached(wanted.name)
            problem = problem or said
        known = peer.status or PeerStatus()
        before = known.conditions or []
        now_s = asyncio.get_running_loop().time()
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        after = declared.conditions(before, problem, peer.metadata.generation, now)
        same = declared.unchanged(before, after)
        if same and (age == known.data_age or now_s < self._told.get(name, 0.0) + AGE_EVERY_S):
            return
        self._told[name] = now_s
        try:
            status = {"conditions": after, "dataAge": age}
            await self._client.patch_status(CLUSTER_MESH_PEERS, name, status)
        except ApiError as error:
            if not error.not_found:  # deleted just now
                raise

    def _reached(self, cluster: ClusterName) -> tuple[Problem | None, str]:
        """Why a peer is not read, if it is not; and how old what is known of it is."""
        status = self.remotes.status(cluster)
        if status is None:
            return Problem("Connecting", "the connection is written, and not yet tried"), ""
        age = status.age.age_s(asyncio.get_running_loop().time())
        text = declared.format_age(age) if status.config is not None else ""
        if status.ready:
            return None, text
        return Problem("NotConnected", status.message or "the connection is being tried"), text


def usable(secret: Secret, where: str, now: datetime) -> dict[str, bytes]:
    """The certificate material of a Secret. Raises ``ValueError`` naming the key and the remedy."""
    data = secret.data or {}
    missing = [key for key in PARTS.values() if not data.get(key)]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}: add it")
    parts = {part: data[key] for part, key in PARTS.items()}
    why = check.problem(f"{where}, tls.crt", parts["crt"], parts["ca"], now)
    if why:
        raise ValueError(why)
    if not signing.fits(parts["crt"], parts["key"]):
        raise ValueError(f"{where}: tls.key is not the key of tls.crt: put the right one there")
    return parts
