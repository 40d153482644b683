"""What rules may name beside labels, as the API server tells it: services, named ports."""

from typing import Any

import msgspec
import pytest

from agent.policy_inputs import PolicyInputs, ports_of, published_ports
from agent.staged_rules import StagedRules
from model.address import parse_address, parse_prefix
from model.labels import CLUSTER_LABEL, NAMESPACE_LABEL, Labels
from model.local_service import LocalService, MeshSettings
from model.policy_map import Direction
from model.service import ServiceName
from policy.known import Options, PolicyService, Subject
from policy.objects.settings import Settings
from policy.selectors import selects
from policy.table import PolicyTable
from wire.k8s.cilium_endpoint import CiliumEndpoint
from wire.k8s.pod import Pod

NAME = ServiceName("shop", "web")


@pytest.fixture
def table() -> PolicyTable:
    return PolicyTable(Options())


@pytest.fixture
def inputs(table: PolicyTable) -> PolicyInputs:
    client: Any = None  # nothing is watched here
    return PolicyInputs(client, StagedRules(table), Settings(cluster="alpha"), lambda soon: None)


def known(table: PolicyTable) -> PolicyService | None:
    return table.known.services.get((NAME.namespace, NAME.name))


def pod(cluster: str, namespace: str = "shop", app: str = "web") -> Labels:
    return Labels.k8s({"app": app, NAMESPACE_LABEL: namespace, CLUSTER_LABEL: cluster})


@pytest.mark.parametrize(("is_global", "abroad"), [(False, False), (True, True)])
def test_pods_of_a_service(
    inputs: PolicyInputs, table: PolicyTable, is_global: bool, abroad: bool
) -> None:
    """In its namespace, by its selector; those of other clusters if it is global."""
    mesh = MeshSettings(is_global=is_global)
    inputs.service(NAME, LocalService(NAME, mesh=mesh, selector={"app": "web"}))
    found = known(table)
    assert found is not None
    assert found.pods is not None
    assert selects(found.pods, pod("alpha"))
    assert selects(found.pods, pod("beta")) is abroad
    assert not selects(found.pods, pod("alpha", "other"))
    assert not selects(found.pods, pod("alpha", app="db"))
    inputs.service(NAME, None)
    assert known(table) is None


def test_addresses_of_a_service(inputs: PolicyInputs, table: PolicyTable) -> None:
    """Of one without a selector alone, whichever is told first."""
    inputs.backends(NAME, [parse_address("203.0.113.9")])
    assert known(table) is None
    inputs.service(NAME, LocalService(NAME, labels={"tier": "x"}))
    address = parse_prefix("203.0.113.9/32")
    assert known(table) == PolicyService(Labels.k8s({"tier": "x"}), None, (address,))
    inputs.service(NAME, LocalService(NAME, selector={"app": "web"}))
    found = known(table)
    assert found is not None
    assert found.addresses == ()
    inputs.service(NAME, LocalService(NAME))
    inputs.backends(NAME, [])
    assert known(table) == PolicyService(addresses=())


def test_names_of_ports(inputs: PolicyInputs, table: PolicyTable) -> None:
    """§4.6: a name whose numbers differ between pods has none, until they agree again."""
    subject = Subject(Labels())

    def number(name: str = "http") -> int | None:
        return table.known.port_number(subject, Direction.EGRESS, name, 6)

    inputs.port_names("shop", "a", [("HTTP", 6, 8080)])
    inputs.port_names("shop", "b", [("http", 6, 8080), ("http", 17, 9)])
    assert (number(), number("HTTP"), number("https")) == (8080, 8080, None)
    inputs.port_names("other", "c", [("http", 6, 80)])
    assert number() is None
    inputs.port_names("other", "c", [])
    assert number() == 8080
    for name in ("a", "b"):
        inputs.port_names("shop", name, [])
    assert number() is None


def test_ports_of_a_pod() -> None:
    """§4.6: those of its containers that have a name; not of init containers."""
    port = {"name": "init", "containerPort": 1}
    ports = [
        {"name": "http", "containerPort": 8080},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "odd", "containerPort": 7, "protocol": "QUIC"},
        {"containerPort": 9},
    ]
    spec = {"initContainers": [{"name": "i", "ports": [port]}], "containers": [{"ports": ports}]}
    found = msgspec.convert({"metadata": {"name": "p"}, "spec": spec}, Pod)
    assert ports_of(found) == (("dns", 17, 53), ("http", 6, 8080))


def test_ports_that_are_published() -> None:
    """The object of an endpoint says the same; there may be none yet."""
    named = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    found = msgspec.convert({"metadata": {}, "status": {"named-ports": named}}, CiliumEndpoint)
    assert published_ports(found) == (("http", 6, 8080),)
    assert published_ports(None) == ()
