"""What happened in the agent, by the lines of its stream."""

from hubble.agent_events import event_of, started
from hubble.names import Names
from wire.hubble import flow_pb2 as f
from wire.names import EndpointLine, FrontendLine, IdentityLine, Line, PrefixLine, RuleLine, Self

POD = EndpointLine(
    id=7, addresses=("10.1.0.7",), namespace="shop", pod="web-0", labels=("k8s:a=b",)
)


def told(names: Names, line: Line, at_ns: int = 1) -> f.AgentEvent | None:
    """As the node does it: first the event, then the names."""
    event = event_of(line, names, at_ns)
    names.apply(line, at_ns)
    return event


def test_a_pod_comes_changes_its_labels_and_goes() -> None:
    names = Names()
    created = told(names, POD)
    assert created is not None
    assert created.type == f.ENDPOINT_CREATED
    update = created.endpoint_update
    assert (update.id, update.namespace, update.pod_name) == (7, "shop", "web-0")
    assert list(update.labels) == ["k8s:a=b"]
    relabelled = EndpointLine(id=7, addresses=POD.addresses, namespace="shop", pod="web-0")
    assert told(names, relabelled, 2) is None
    deleted = told(names, EndpointLine(id=7, gone=True), 3)
    assert deleted is not None
    assert (deleted.type, deleted.endpoint_update.pod_name) == (f.ENDPOINT_DELETED, "web-0")
    assert told(names, EndpointLine(id=7, gone=True), 4) is None


def test_an_address_gets_an_identity_another_one_and_none() -> None:
    names = Names()
    line = PrefixLine("10.2.0.1", 300, "shop", "far-0", "192.0.2.2")
    first = told(names, line)
    assert first is not None
    update = first.ipcache_update
    assert first.type == f.IPCACHE_UPSERTED
    assert (update.cidr, update.identity, update.host_ip) == ("10.2.0.1/32", 300, "192.0.2.2")
    assert (update.namespace, update.pod_name) == ("shop", "far-0")
    assert not update.HasField("old_identity")
    second = told(names, PrefixLine("10.2.0.1", 301), 2)
    assert second is not None
    assert second.ipcache_update.old_identity.value == 300
    gone = told(names, PrefixLine("10.2.0.1", gone=True), 3)
    assert gone is not None
    assert (gone.type, gone.ipcache_update.identity) == (f.IPCACHE_DELETED, 301)


def test_a_policy_comes_and_goes_and_an_identity_is_no_event() -> None:
    names = Names()
    rule = RuleLine(3, "NetworkPolicy", "shop", "allow", ("k8s:x=y",), 9)
    updated = told(names, rule)
    assert updated is not None
    assert (updated.type, updated.policy_update.revision) == (f.POLICY_UPDATED, 9)
    deleted = told(names, RuleLine(3, gone=True), 2)
    assert deleted is not None
    assert (deleted.type, list(deleted.policy_update.labels)) == (f.POLICY_DELETED, ["k8s:x=y"])
    assert told(names, IdentityLine(300, ("k8s:a=b",))) is None


def test_each_start_of_an_agent_is_told_once() -> None:
    """Not the one before this observer's own, nor that of an agent that does not say it."""
    before, me = Self("west", "n1"), Self("west", "n1", (), 500)
    event = started(me, before, 400)
    assert event is not None
    assert event.type == f.AGENT_STARTED
    assert event.agent_start.time.ToNanoseconds() == 500
    assert started(me, before, 600) is None
    assert started(me, me, 400) is None
    assert started(before, me, 400) is None
    again = started(Self("west", "n1", (), 900), me, 400)
    assert again is not None


def test_a_service_comes_and_goes() -> None:
    names = Names()
    line = FrontendLine(address="10.96.0.7", port=80, protocol=6, namespace="shop", name="web")
    event = told(names, line)
    assert event is not None
    assert event.type == f.SERVICE_UPSERTED
    front = event.service_upsert.frontend_address
    assert (front.ip, front.port, event.service_upsert.name) == ("10.96.0.7", 80, "web")
    assert told(names, line, 2) is None
    gone = FrontendLine(address="10.96.0.7", port=80, protocol=6, gone=True)
    event = told(names, gone, 3)
    assert event is not None
    assert event.type == f.SERVICE_DELETED
    assert told(names, gone, 4) is None
