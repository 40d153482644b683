"""``clustermesh``: inputs, publication, publisher and pages put together. Adapter; no rules."""

import logging
import time
from pathlib import Path

from certs import check
from clustermesh_apiserver import health
from clustermesh_apiserver.config import Settings
from clustermesh_apiserver.exports import ExportPublication
from clustermesh_apiserver.inputs import Inputs
from clustermesh_apiserver.publish import Publication
from clustermesh_apiserver.publisher_metrics import PREFIX, counted, page
from clustermesh_apiserver.requests import Requests
from clustermesh_apiserver.spared import Spared
from kube.config import connect as connect_kube
from kvstore import etcd
from kvstore.config import load_store_config
from kvstore.publisher import Publisher
from model.cluster import Capabilities, ClusterConfig
from reconcile.tasks import TaskGroup
from telemetry.metrics import family
from wire.etcd import keys

log = logging.getLogger("clustermesh")


def announcement(settings: Settings) -> ClusterConfig:
    """What the others learn before anything else."""
    return ClusterConfig(
        settings.cluster_id,
        Capabilities(
            synced_canaries=True,
            max_connected_clusters=settings.max_connected_clusters,
            service_exports=settings.exports,
        ),
    )


class Pages:
    """What the health and metrics pages say."""

    def __init__(
        self, settings: Settings, publication: Publication, publisher: Publisher, inputs: Inputs
    ) -> None:
        self._cluster = settings.cluster_name
        self._etcd_config = settings.etcd_config
        self._publication = publication
        self._publisher = publisher
        self._inputs = inputs
        self.requests = Requests()
        self._started = time.monotonic()
        self.bootstrap_s = 0.0  # from start to the last canary

    async def note_ready(self) -> None:
        """Remember how long it took."""
        await self._publisher.ready.wait()
        self.bootstrap_s = time.monotonic() - self._started
        log.info("event=ready seconds=%.3f", self.bootstrap_s)

    def readyz(self) -> tuple[int, str]:
        """200 once all canaries are written: only then may other clusters be sent here."""
        return (200, "Ready\n") if self._publisher.ready.is_set() else (500, "NotReady\n")

    def healthz(self) -> tuple[int, str]:
        """Always 200, with what is wrong: a restart would mend none of it."""
        lines = [] if self._publisher.connected else [f"store: {self._publisher.last_error}"]
        lines += [f"store: {self._publisher.full}"] if self._publisher.full else []
        lines += [f"watch: {i.status.error}" for i in self._inputs.all() if i.status.error]
        lines += [f"row {key}: {why}" for key, why in self._publisher.problems.items()]
        lines += [said for group in self._publication.problems.values() for said in group]
        lines += [i.status.last_rejected for i in self._inputs.all() if i.bad]
        return 200, "".join(f"{line}\n" for line in lines) or "ok\n"

    def _rejected(self) -> list[tuple[str, str, float]]:
        """Objects that do not decode, by kind; and those whose content makes no sense."""
        undecodable = [
            (i.resource.kind, "undecodable", float(i.rejected)) for i in self._inputs.all()
        ]
        return [*undecodable, ("any", "invalid", float(self._publication.rejected))]

    def _expiry(self) -> float:
        """Of the certificate that the next connection will use; 0: there is none."""
        try:
            config = load_store_config(Path(self._etcd_config))
            pem = Path(config.cert_file).read_bytes() if config.cert_file else b""
            return check.expires_at(pem).timestamp() if pem else 0.0
        except (OSError, ValueError):  # the connection itself says what is wrong with them
            return 0.0

    def metrics(self) -> tuple[int, str]:
        """Names are those of Cluster Mesh where it has one, our own below them."""
        publisher, kinds = self._publisher, dict(self._inputs.kinds())
        here = {"source_cluster": str(self._cluster)}
        expires = self._expiry()
        own = [
            counted(
                "kvstore_full",
                "gauge",
                "1: the store's quota is used up and it takes no writes",
                here,
                float(bool(publisher.full)),
            ),
            counted(
                "kvstore_rows_failing",
                "gauge",
                "Rows that the store refuses, retried",
                here,
                len(publisher.problems),
            ),
            counted(
                "kvstore_writes_total",
                "counter",
                "Operations written to the store",
                here,
                publisher.writes,
            ),
            family(
                f"{PREFIX}rejected_objects_total",
                "counter",
                "Versions of objects that could not be understood",
                [
                    ({"kind": kind, "reason": reason, **here}, value)
                    for kind, reason, value in self._rejected()
                ],
            ),
            family(
                f"{PREFIX}certificate_expiration_timestamp_seconds",
                "gauge",
                "When the publisher's certificate expires, seconds since 1970",
                [(here, expires)] if expires else [],
            ),
        ]
        return 200, page(
            str(self._cluster),
            bootstrap_s=self.bootstrap_s,
            listed={
                f"{kind}/v1": all(i.synced.is_set() for i in informers)
                for kind, informers in kinds.items()
            },
            written={f"{r}/v1": publisher.is_written(r) for r in keys.RESOURCES},
            queued=publisher.queued(),
            errors=publisher.errors,
            own=own,
            requests=self.requests,
        )


async def run(settings: Settings) -> None:
    """Until cancelled. Raises ``ValueError`` for settings that cannot be right."""
    store_config = load_store_config(Path(settings.etcd_config))
    async with await connect_kube(settings.kubeconfig) as client:
        publication = Publication(settings.cluster_name, settings.cluster_id)
        publisher = Publisher(
            # Read anew each time: a rotated certificate needs no restart.
            lambda: etcd.connect(load_store_config(Path(settings.etcd_config))),
            settings.cluster_name,
            announcement(settings),
            lease_ttl_s=settings.lease_ttl_s,
            spares=Spared(lambda: inputs.unusable()),
        )
        exports = ExportPublication(settings.cluster_name) if settings.exports else None
        inputs = Inputs(client, publication, publisher, exports)
        if exports is None:
            publisher.complete(keys.SERVICE_EXPORTS)  # there are none, and readers wait to hear it
        pages = Pages(settings, publication, publisher, inputs)
        log.info(
            "event=start cluster=%s id=%d api=%s store=%s",
            settings.cluster_name,
            settings.cluster_id,
            client.server,
            ",".join(store_config.endpoints),
        )
        runners = [
            await health.serve(
                "",
                settings.health_port,
                {"/readyz": pages.readyz, "/healthz": pages.healthz},
                pages.requests,
            )
        ]
        try:
            if settings.metrics is not None:
                found = {"/metrics": pages.metrics}
                runners.append(await health.serve(*settings.metrics, found, pages.requests))
            async with TaskGroup() as tasks:
                tasks.create_task(publisher.run())
                tasks.create_task(inputs.run())
                tasks.create_task(pages.note_ready())
        finally:
            for runner in runners:
                await runner.cleanup()
