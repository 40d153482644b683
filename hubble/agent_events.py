"""What happened in the agent, seen in its names. Pure."""

from hubble.names import Names, packed
from wire.hubble import flow_pb2 as f
from wire.names import EndpointLine, FrontendLine, Line, PrefixLine, RuleLine, Self


def event_of(line: Line, names: Names, at_ns: int) -> f.AgentEvent | None:
    """The event that a line means, asked before the line counts; ``None``: it means none."""
    if isinstance(line, EndpointLine):
        return _endpoint(line, names, at_ns)
    if isinstance(line, FrontendLine):
        return _service(line, names, at_ns)
    if isinstance(line, PrefixLine):
        return _prefix(line, names, at_ns)
    if isinstance(line, RuleLine):
        kind = f.POLICY_DELETED if line.gone else f.POLICY_UPDATED
        made = f.AgentEvent(type=kind)
        rule = names.rule(line.number, at_ns)
        made.policy_update.labels.extend(line.labels or (rule.labels if rule else ()))
        made.policy_update.revision = line.revision
        made.policy_update.rule_count = 1
        return made
    return None


def started(line: Self, before: Self, since_ns: int) -> f.AgentEvent | None:
    """That the agent began after ``since_ns``, when this observer did; told once of each start."""
    if line.started_ns in (0, before.started_ns) or line.started_ns < since_ns:
        return None
    made = f.AgentEvent(type=f.AGENT_STARTED)
    made.agent_start.time.FromNanoseconds(line.started_ns)
    return made


def _service(line: FrontendLine, names: Names, at_ns: int) -> f.AgentEvent | None:
    known = names.service(packed(line.address), line.port, line.protocol, at_ns)
    if line.gone:
        made = f.AgentEvent(type=f.SERVICE_DELETED)
        made.service_delete.SetInParent()
        return made if known else None
    if known == (line.namespace, line.name):
        return None
    made = f.AgentEvent(type=f.SERVICE_UPSERTED)
    told = made.service_upsert
    told.frontend_address.ip, told.frontend_address.port = line.address, line.port
    told.namespace, told.name = line.namespace, line.name
    return made


def _endpoint(line: EndpointLine, names: Names, at_ns: int) -> f.AgentEvent | None:
    before = names.endpoint(line.id, at_ns)
    about = before if line.gone else line
    if about is None or (before is not None and not line.gone and before.pod == line.pod):
        return None  # only its labels are others
    made = f.AgentEvent(type=f.ENDPOINT_DELETED if line.gone else f.ENDPOINT_CREATED)
    update = made.endpoint_update
    update.id, update.pod_name, update.namespace = about.id, about.pod, about.namespace
    update.labels.extend(about.labels)
    return made


def _prefix(line: PrefixLine, names: Names, at_ns: int) -> f.AgentEvent:
    made = f.AgentEvent(type=f.IPCACHE_DELETED if line.gone else f.IPCACHE_UPSERTED)
    update = made.ipcache_update
    address, _, length = line.prefix.partition("/")
    update.cidr = line.prefix if length else f"{address}/{8 * len(packed(address))}"
    before = names.known(packed(address), at_ns)
    update.identity = before.identity if line.gone and before else line.identity
    if before is not None and not line.gone and before.identity != line.identity:
        update.old_identity.value = before.identity
    update.host_ip, update.namespace, update.pod_name = line.host, line.namespace, line.pod
    return made
