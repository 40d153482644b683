"""The events of this node, put together. Wiring.

The observer reads `ring` and shows what `decode` makes of it.
"""

import asyncio
import importlib.metadata
import os
import socket
import time
from collections.abc import Iterable

from hubble.access_log import AccessLog
from hubble.access_log_socket import AccessLogSocket
from hubble.agent_events import event_of, started
from hubble.config import HubbleConfig
from hubble.decode import Decoder
from hubble.dns_names import DnsNames
from hubble.intake import Intake
from hubble.names import Names
from hubble.names_client import NamesClient
from hubble.ring import RECORD_AGENT, Entry, Ring
from hubble.seen_namespaces import SeenNamespaces
from hubble.source import Message
from model.kernel_numbers import PIN_DIRECTORY
from reconcile.tasks import TaskGroup
from wire.hubble.flow_pb2 import Emitter
from wire.names import Line, Self

UPKEEP_S = 2.0


class NodeSource:
    """Ring, names and decoder of one node, fed by ``run``."""

    def __init__(self, config: HubbleConfig) -> None:
        self.ring = Ring(config.hubble_event_buffer_capacity, config.hubble_monitor_events)
        self.names = Names()
        self.names.apply(Self(config.cluster_name, config.k8s_node_name), 0)
        self.seen = SeenNamespaces(self.ring, self.names)
        self.dns = DnsNames()
        version = importlib.metadata.version("isthmus")
        emitter = Emitter(name="isthmus", version=version)
        self.decoder = Decoder(self.names, os.urandom(8), self.dns, emitter)
        self.access_log = AccessLog(self.names, self.dns, config.redaction)
        self._proxies = AccessLogSocket(config.access_log_path, self.access_log, self.ring)
        self.intake = Intake(self.ring, config.bpf_root / PIN_DIRECTORY, config.queue_size)
        self.client = NamesClient(self.names, config.socket_path, self._told)
        self.started_ns = time.time_ns()

    @property
    def node_name(self) -> str:
        """``<cluster>/<node>``."""
        me = self.names.self
        return f"{me.cluster}/{me.node}"

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self.intake.run(), name="intake")
            tasks.create_task(self.client.run(), name="names")
            tasks.create_task(self._proxies.run(), name="access-log")
            tasks.create_task(self._keep(), name="upkeep")

    async def _keep(self) -> None:
        """Names of devices; and what was called otherwise before the oldest event is forgotten."""
        while True:
            self.seen.look()
            self.decoder.name_interfaces(dict(socket.if_nameindex()))
            oldest = self.ring.at(self.ring.oldest)
            before_ns = oldest.time_ns if oldest else time.time_ns()
            self.names.forget(before_ns)
            self.dns.forget(before_ns)
            await asyncio.sleep(UPKEEP_S)

    def _told(self, line: Line, now_ns: int) -> None:
        """A line of the agent. What it tells before it is synced again is no news but its start."""
        event = None
        if isinstance(line, Self):
            event = started(line, self.names.self, self.started_ns)
        elif self.names.synced:
            event = event_of(line, self.names, now_ns)
        if event is not None:
            self.ring.extend([(now_ns, bytes([RECORD_AGENT]) + event.SerializeToString())])

    def decode(self, entry: Entry) -> Message | None:
        """What the record tells; ``None`` when it cannot be read."""
        return self.decoder.decode(entry)

    def wire(self, entry: Entry) -> bytes | None:
        """The flow of the record, in wire form."""
        return self.decoder.wire(entry)

    def namespaces(self) -> Iterable[tuple[str, str]]:
        """(cluster, namespace) of the flows of the last hour."""
        return self.seen.get(time.time_ns())
