"""A raw record of the ring into what Hubble's API tells: a flow, a loss, an event. Pure.

Every answer is a function of the record, of its place in the ring and of the names at its time, so
that two readers get the same, down to the UUID.
"""

from google.protobuf.message import DecodeError

from hubble import l7, packet, ring
from hubble.dns_names import DnsNames
from hubble.endpoints import EndpointMessages
from hubble.names import Names
from hubble.packet import Addresses, CutShortError
from hubble.templates import Template, Templates, likeness
from wire import access_log
from wire.bpf import events
from wire.bpf import layouts as w
from wire.hubble import flow_pb2 as f

_POINT_TO_ENDPOINT = int(w.TracePoint.TRACE_TO_ENDPOINT)
_REASONS = {
    0: f.NEW,
    1: f.ESTABLISHED,
    2: f.REPLY,
    3: f.RELATED,
    4: f.REOPENED,
    6: f.SRV6_ENCAP,
    7: f.SRV6_DECAP,
    8: f.ENCRYPT_OVERLAY,
}
_IS_REPLY = {0: False, 1: False, 2: True, 3: False, 4: False}
_UNKNOWN_REASON, _ENCRYPT_OVERLAY = 5, 8
_FILES = {
    w.SourceFile.SOURCE_FROM_CONTAINER: "from_container.bpf.c",
    w.SourceFile.SOURCE_FROM_OVERLAY: "overlay.h",
    w.SourceFile.SOURCE_FROM_HOST: "from_host.bpf.c",
    w.SourceFile.SOURCE_PARSE: "parse.h",
    w.SourceFile.SOURCE_CONNTRACK: "conntrack.h",
    w.SourceFile.SOURCE_SERVICE: "service.h",
    w.SourceFile.SOURCE_NAT: "nat.h",
    w.SourceFile.SOURCE_ICMP: "related.h",
    w.SourceFile.SOURCE_FORWARD: "forward.h",
    w.SourceFile.SOURCE_DELIVER: "deliver.h",
    w.SourceFile.SOURCE_NEIGHBOUR: "neighbour.h",
    w.SourceFile.SOURCE_ACT: "act.h",
    w.SourceFile.SOURCE_POLICY: "policy.h",
    w.SourceFile.SOURCE_FROM_WIREGUARD: "from_wireguard.bpf.c",
}
_BEFORE = frozenset(
    (w.TranslationPoint.TRANSLATION_BEFORE, w.TranslationPoint.TRANSLATION_ANSWER_BEFORE)
)
_ANSWERS = frozenset(
    (w.TranslationPoint.TRANSLATION_ANSWER_BEFORE, w.TranslationPoint.TRANSLATION_ANSWER_AFTER)
)
_DENY_RULE = int(w.DropReason.DROP_POLICY_DENY_RULE)
_INGRESS = int(w.TrafficDirection.DIRECTION_INGRESS)

Message = f.Flow | f.LostEvent | f.AgentEvent


class Decoder:
    """For one ring. ``salt`` makes UUIDs differ between processes: eight random bytes."""

    def __init__(
        self,
        names: Names,
        salt: bytes,
        dns: DnsNames | None = None,
        emitter: f.Emitter | None = None,
    ) -> None:
        """``emitter``: who tells of the flows."""
        self._emitter = emitter
        self.names = names
        self.dns = DnsNames() if dns is None else dns
        self.failed = 0  # records that could not be read, ever
        self._messages = EndpointMessages(names)
        self._templates = Templates(names)
        self._interfaces: dict[int, str] = {}
        text = salt.hex()  # version 4 by its marks
        self._uuid_begin = f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8"

    def name_interfaces(self, names: dict[int, str]) -> None:
        """What this node's devices are called, by number."""
        if names != self._interfaces:
            self._interfaces = names
            self._templates.drop()

    def decode(self, entry: ring.Entry) -> Message | None:
        """``None``: a record that is not understood; it is counted."""
        record = entry.record
        try:
            if record[0] == ring.RECORD_LOST:
                return _lost(ring.parse_lost(record), entry.time_ns)
            if record[0] == ring.RECORD_AGENT:
                return f.AgentEvent.FromString(record[1:])
            shared, flow = self._parts(entry)
            flow.MergeFromString(shared)
            return flow
        except (ValueError, DecodeError):
            self.failed += 1
            return None

    def wire(self, entry: ring.Entry) -> bytes | None:
        """The flow of a record in wire form; ``None``: it has none, or is not understood."""
        if not ring.is_flow(entry.record):
            return None
        try:
            shared, flow = self._parts(entry)
        except (ValueError, DecodeError):
            self.failed += 1
            return None
        return shared + flow.SerializeToString()

    def _parts(self, entry: ring.Entry) -> tuple[bytes, f.Flow]:
        """What others share with this flow, in wire form (nothing: no others), and the rest."""
        alike, at_ns = likeness(entry.record), entry.time_ns
        template = self._templates.get(alike, at_ns) if alike else None
        if alike and template:
            return template.wire, self._own(entry, alike.addresses, template)
        flow = self._read(entry)
        if alike:
            self._templates.keep(alike, flow, at_ns)
        return b"", flow

    def _own(self, entry: ring.Entry, found: Addresses, template: Template) -> f.Flow:
        """What the template leaves out."""
        flow = f.Flow()
        flow.l4.CopyFrom(template.l4)
        packet.set_ports(flow, found)
        self._fill_names(flow, found, (template.source, template.destination), entry.time_ns)
        self._number(flow, entry)
        return flow

    def _read(self, entry: ring.Entry) -> f.Flow:
        """Field by field."""
        flow, at_ns = f.Flow(), entry.time_ns
        if entry.record[0] == ring.RECORD_ACCESS_LOG:
            found, identities = l7.fill(flow, access_log.decode(entry.record[1:]))
            self._fill_ends(flow, found, identities, at_ns)
        else:
            event = events.parse(entry.record)
            if isinstance(event, events.Trace):
                self._trace(flow, event, at_ns)
            elif isinstance(event, events.Drop):
                self._drop(flow, event, at_ns)
            elif isinstance(event, events.PolicyVerdict):
                self._verdict(flow, event, at_ns)
            elif isinstance(event, events.Translation):
                self._translation(flow, event, at_ns)
            else:
                raise ValueError(f"record of type {entry.record[0]}")
        self._common(flow, entry)
        self._number(flow, entry)
        return flow

    def _common(self, flow: f.Flow, entry: ring.Entry) -> None:
        me = self.names.self
        flow.node_name = f"{me.cluster}/{me.node}"
        flow.node_labels.extend(me.labels)
        flow.event_type.type = entry.record[0]
        if self._emitter is not None:
            flow.emitter.CopyFrom(self._emitter)

    def _number(self, flow: f.Flow, entry: ring.Entry) -> None:
        """Time and UUID, which is the same for every reader of the record."""
        time, number = flow.time, entry.number.to_bytes(8, "big").hex()
        time.seconds, time.nanos = divmod(entry.time_ns, 10**9)
        flow.uuid = f"{self._uuid_begin}{number[1:4]}-{number[4:]}"

    def _trace(self, flow: f.Flow, event: events.Trace, at_ns: int) -> None:
        found = packet.fill(flow, event.packet)
        flow.verdict = f.FORWARDED
        flow.Type = f.L3_L4
        point = event.point
        flow.event_type.sub_type = point
        shown = f.TO_ENDPOINT if point == _POINT_TO_ENDPOINT else point
        flow.trace_observation_point = shown  # type: ignore[assignment]
        reason = event.reason
        flow.trace_reason = _REASONS.get(reason, f.TRACE_REASON_UNKNOWN)
        is_reply = _IS_REPLY.get(reason)
        if is_reply is not None:
            flow.is_reply.value = is_reply
            flow.reply = is_reply
        if event.encrypted:
            flow.IP.encrypted = True
        if event.ifindex:
            self._interface(flow, event.ifindex)
        source = found.source
        if event.original and event.original != source:
            flow.IP.source_xlated = flow.IP.source
            flow.IP.source = packet.address_text(event.original)
            source = event.original
        pair = event.source_identity, event.destination_identity
        self._fill_ends(flow, found, pair, at_ns, source)
        number = event.header.endpoint
        if number and reason != _UNKNOWN_REASON:
            flow.traffic_direction = self._trace_direction(event, source, bool(is_reply), at_ns)

    def _trace_direction(
        self, event: events.Trace, source: bytes, is_reply: bool, at_ns: int
    ) -> f.TrafficDirection:
        if event.reason == _ENCRYPT_OVERLAY:
            return f.EGRESS
        local = self.names.local(source, at_ns)
        is_source = local is not None and local.id == event.header.endpoint
        if event.point == _POINT_TO_ENDPOINT and not is_reply:
            is_source = False  # also of a pod that reached itself: this is its receiving side
        return f.EGRESS if is_source != is_reply else f.INGRESS

    def _drop(self, flow: f.Flow, event: events.Drop, at_ns: int) -> None:
        try:
            found = packet.fill(flow, event.packet)
        except CutShortError:
            # That may be the very reason for the drop: it is shown without what it does not have.
            found = packet.NOT_IP
        flow.verdict = f.DROPPED
        flow.Type = f.L3_L4
        flow.event_type.sub_type = event.reason
        flow.drop_reason = event.reason
        flow.drop_reason_desc = event.reason  # type: ignore[assignment]
        if event.file:
            flow.file.name = _FILES.get(w.SourceFile(event.file), f"unknown({event.file})")
            flow.file.line = event.line
        pair = event.source_identity, event.destination_identity
        self._fill_ends(flow, found, pair, at_ns)
        if event.header.endpoint:
            flow.traffic_direction = f.INGRESS if event.destination_endpoint else f.EGRESS

    def _verdict(self, flow: f.Flow, event: events.PolicyVerdict, at_ns: int) -> None:
        found = packet.fill(flow, event.packet)
        flow.Type = f.L3_L4
        flow.policy_match_type = event.match
        is_ingress = event.direction == _INGRESS
        flow.traffic_direction = f.INGRESS if is_ingress else f.EGRESS
        if event.reason > 0:
            flow.verdict = f.DROPPED
            flow.drop_reason = event.reason
            flow.drop_reason_desc = event.reason  # type: ignore[assignment]
        else:
            flow.verdict = f.AUDIT if event.audited else f.FORWARDED
            flow.is_reply.value = False
        local = self.names.endpoint(event.header.endpoint, at_ns)
        own = local.identity if local else 0
        pair = (event.remote_identity, own) if is_ingress else (own, event.remote_identity)
        self._fill_ends(flow, found, pair, at_ns)
        self._correlate(flow, event, is_ingress, at_ns)

    def _correlate(
        self, flow: f.Flow, event: events.PolicyVerdict, is_ingress: bool, at_ns: int
    ) -> None:
        """The policy whose rule decided. Default deny is nobody's, and neither is audit."""
        if event.audited or event.reason not in (0, _DENY_RULE):
            return
        rule = self.names.rule(event.rule, at_ns)
        if rule is None:
            return
        if event.reason:
            told = flow.ingress_denied_by if is_ingress else flow.egress_denied_by
        else:
            told = flow.ingress_allowed_by if is_ingress else flow.egress_allowed_by
        told.add(
            name=rule.name,
            namespace=rule.namespace,
            kind=rule.kind,
            labels=rule.labels,
            revision=rule.revision,
        )
        if rule.log:
            flow.policy_log.append(rule.log)

    def _translation(self, flow: f.Flow, event: events.Translation, at_ns: int) -> None:
        flow.verdict = f.TRACED if event.point in _BEFORE else f.TRANSLATED
        flow.Type = f.SOCK
        flow.event_type.sub_type = event.point
        flow.sock_xlate_point = event.point  # type: ignore[assignment]
        flow.socket_cookie, flow.cgroup_id = event.cookie, event.cgroup
        source, destination = event.source, event.destination
        ports = (event.source_port, event.destination_port)
        identities = event.source_identity, 0
        if event.point in _ANSWERS:
            source, destination, ports = destination, source, ports[::-1]
            identities = identities[::-1]
        flow.IP.source = packet.address_text(source)
        flow.IP.destination = packet.address_text(destination)
        flow.IP.ipVersion = f.IPv6 if event.is_ip6 else f.IPv4
        if event.protocol == packet.TCP:
            flow.l4.TCP.source_port, flow.l4.TCP.destination_port = ports
            flow.Summary = "TCP"
        elif event.protocol == packet.UDP:
            flow.l4.UDP.source_port, flow.l4.UDP.destination_port = ports
            flow.Summary = "UDP"
        else:
            flow.Summary = "Unknown"
        found = Addresses(source, destination, event.protocol, *ports)
        self._fill_ends(flow, found, identities, at_ns)

    def _fill_ends(
        self,
        flow: f.Flow,
        found: Addresses,
        identities: tuple[int, int],
        at_ns: int,
        sender: bytes = b"",
    ) -> None:
        """``sender``: whose packet it is, when that is not its source address."""
        messages = self._messages
        source = messages.get(sender or found.source, identities[0], at_ns)
        destination = messages.get(found.destination, identities[1], at_ns)
        flow.source.CopyFrom(source)
        flow.destination.CopyFrom(destination)
        self._fill_names(flow, found, (source.ID, destination.ID), at_ns)

    def _fill_names(
        self, flow: f.Flow, found: Addresses, pods: tuple[int, int], at_ns: int
    ) -> None:
        """Services by address and port, and what was looked up in the DNS until then.

        ``pods``: their numbers, if they are of this node.
        """
        service = self.names.service
        name = service(found.source, found.source_port, found.protocol, at_ns)
        if name is not None:
            flow.source_service.namespace, flow.source_service.name = name
        name = service(found.destination, found.destination_port, found.protocol, at_ns)
        if name is not None:
            flow.destination_service.namespace, flow.destination_service.name = name
        if self.dns:
            # Who has looked the other side up: the pod of this node at the one end or the other.
            source, destination = pods
            if destination:
                flow.source_names.extend(self.dns.get(destination, found.source, at_ns))
            if source:
                flow.destination_names.extend(self.dns.get(source, found.destination, at_ns))

    def _interface(self, flow: f.Flow, ifindex: int) -> None:
        flow.interface.index = ifindex
        name = self._interfaces.get(ifindex)
        if name:
            flow.interface.name = name


def _lost(lost: ring.Lost, time_ns: int) -> f.LostEvent:
    found = f.LostEvent(source=lost.source, num_events_lost=lost.number)  # type: ignore[arg-type]
    found.cpu.value = lost.cpu
    return found
