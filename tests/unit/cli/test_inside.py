"""Lists of the agent: columns, JSON, and the values of our own agent's shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import shapes
from cli import inside_text, output
from model.address import parse_address, parse_prefix
from model.identity import NumericIdentity
from model.labels import Label, Labels
from model.node import Node, NodeAddress
from model.service import (
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    ServiceName,
)
from tests.support.cli import agent_socket, isthmus

ENDPOINT: dict[str, Any] = {
    "id": 88,
    "status": {
        "state": "ready",
        "identity": {"id": 70011},
        "labels": {"security-relevant": ["k8s:app=shop", "k8s:io.kubernetes.pod.namespace=web"]},
        "networking": {"addressing": [{"ipv4": "10.0.2.3"}]},
        "policy": {"realized": {"policy-enabled": "ingress"}},
    },
}
IDENTITIES = [
    {"id": 1, "labels": ["reserved:host"]},
    {"id": 70011, "labels": ["k8s:app=shop", "k8s:io.cilium.k8s.policy.cluster=alpha"]},
]
IPS = [
    {
        "cidr": "10.0.2.3/32",
        "identity": 70011,
        "encryptKey": 0,
        "hostIP": "192.0.2.6",
        "metadata": {
            "source": "clustermesh",
            "namespace": "web",
            "name": "shop-1",
            "cluster": "beta",
        },
    },
    {"cidr": "10.9.0.1/32", "identity": 90000, "metadata": {"source": "k8s"}},
]


def table(rows: list[list[str]]) -> list[str]:
    return output.table(rows).splitlines()


def test_endpoint_list() -> None:
    """Two lines of headers; further labels below the first; IPv6 empty where there is none."""
    assert table(inside_text.endpoints([ENDPOINT])) == [
        "ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   "
        "LABELS (source:key[=value])           IPv6   IPv4       STATUS",
        "           ENFORCEMENT        ENFORCEMENT",
        "88         Enabled            Disabled          70011      "
        "k8s:app=shop                                 10.0.2.3   ready",
        " " * 59 + "k8s:io.kubernetes.pod.namespace=web",
    ]
    assert len(inside_text.endpoints([ENDPOINT], headers=False)) == 2


def test_an_endpoint_with_nothing_known_is_still_listed() -> None:
    """Fields that are left out are empty cells."""
    (row,) = inside_text.endpoints([{"id": 5}], headers=False)
    assert row == ["5", "Disabled", "Disabled", "", "no labels", "", "", ""]


def test_endpoints_by_label() -> None:
    """Every wanted label must be there, with or without its source."""
    assert inside_text.with_labels([ENDPOINT], ["app=shop"]) == [ENDPOINT]
    both = ["k8s:app=shop", "io.kubernetes.pod.namespace=web"]
    assert inside_text.with_labels([ENDPOINT], both) == [ENDPOINT]
    assert inside_text.with_labels([ENDPOINT], ["app=shop", "app=other"]) == []


def test_identity_list() -> None:
    """One label per line."""
    assert table(inside_text.identities(IDENTITIES)) == [
        "ID      LABELS (source:key[=value])",
        "1       reserved:host",
        "70011   k8s:app=shop",
        "        k8s:io.cilium.k8s.policy.cluster=alpha",
    ]


def test_ip_list_names_identities_it_knows() -> None:
    """Labels where they are known, the number where not; verbose tells node, cluster and pod."""
    labels = {70011: ["k8s:app=shop"]}
    assert table(inside_text.ips(IPS, labels, verbose=False)) == [
        "IP            IDENTITY       SOURCE",
        "10.0.2.3/32   k8s:app=shop   clustermesh",
        "10.9.0.1/32   90000          k8s",
    ]
    verbose = inside_text.ips(IPS, {}, verbose=True)
    assert verbose[1][1:] == ["70011", "clustermesh", "192.0.2.6", "0", "beta", "web/shop-1"]


def _balancer(*backends: Backend, selectable: int) -> LoadBalancer:
    front = Frontend(parse_address("10.201.7.70"), 8080, Protocol.TCP)
    return LoadBalancer(front, ServiceName("default", "web"), backends, selectable)


def test_service_list_of_the_agents_own_shape() -> None:
    """Backends one per line; affinity marks preferred ones, verbose names cluster and node."""
    near = Backend(parse_address("10.44.1.17"), 80, Protocol.TCP, preferred=True, node="w1")
    far = Backend(
        parse_address("fd00::2"), 80, Protocol.TCP, state=BackendState.TERMINATING, cluster="beta"
    )
    shape = shapes.service(9, _balancer(near, far, selectable=1))
    assert table(inside_text.services([shape])) == [
        "ID   Frontend               Service Type   Backend",
        "9    10.201.7.70:8080/TCP   ClusterIP      1 => 10.44.1.17:80/TCP (active)",
        " " * 43 + "2 => [fd00::2]:80/TCP (terminating)",
    ]
    marked = inside_text.services([shape], affinity=True)
    assert marked[1][-1].endswith("(active) (preferred)")
    assert "preferred" not in marked[2][-1]
    verbose = inside_text.services([shape], verbose=True)
    assert verbose[1][1] == "default/web"
    assert verbose[1][-1].endswith("(active) w1")
    assert verbose[2][-1].endswith("(terminating) beta, not for new connections")


def test_service_list_tells_weights() -> None:
    """Verbose tells a backend's weight where backends are not all alike."""
    near = Backend(parse_address("10.44.1.17"), 80, Protocol.TCP, node="w1")
    far = Backend(parse_address("10.44.2.17"), 80, Protocol.TCP, cluster="beta")
    row = replace(_balancer(near, far, selectable=2), weights=(4, 1))
    lines = inside_text.services([shapes.service(9, row)], verbose=True)
    assert lines[1][-1].endswith("(active) w1, weight 4")
    assert lines[2][-1].endswith("(active) beta, weight 1")


def test_a_service_without_backends_is_listed() -> None:
    """Its last column is empty."""
    shape = shapes.service(1, _balancer(selectable=0))
    assert inside_text.services([shape])[1][-1] == ""


def test_node_list_of_the_agents_own_shape() -> None:
    """Address and pod CIDR of each family."""
    node = Node(
        name="w1",
        cluster="beta",
        cluster_id=2,
        addresses=(NodeAddress("InternalIP", parse_address("192.0.2.6")),),
        pod_cidrs=(parse_prefix("10.2.0.0/24"),),
    )
    rows = inside_text.nodes([shapes.node(node, "clustermesh")])
    assert rows[1] == ["beta/w1", "192.0.2.6", "10.2.0.0/24", "", "", "clustermesh"]


def test_identities_of_the_agents_own_shape() -> None:
    """Reserved numbers have their names, others their labels."""
    found = [
        shapes.identity(NumericIdentity(2), None),
        shapes.identity(NumericIdentity(70011), Labels.of([Label("app", "shop")])),
    ]
    assert inside_text.identities(found)[1:] == [
        ["2", "reserved:world"],
        ["70011", "k8s:app=shop"],
    ]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("endpoint", "list"), "endpoint"),
        (("identity", "list"), "identity"),
        (("identity", "list", "--endpoints"), "identity/endpoints"),
        (("ip", "list"), "ip"),
        (("ip", "get", "10.0.2.3"), "ip?cidr=10.0.2.3"),
        (("service", "list"), "service"),
    ],
)
def test_json_is_what_the_agent_said(tmp_path: Path, arguments: tuple[str, ...], path: str) -> None:
    """`-o json` of every list decodes to the agent's answer."""
    answer = [{"anything": [1, {"at": "all"}]}]
    with agent_socket(tmp_path / "s", {path: answer}) as agent:
        result = isthmus(*arguments, "-o", "json", "-H", agent.path)
        assert (result.code, result.json) == (0, answer)
        assert agent.asked == [f"/v1/{path}"]


def test_single_objects(tmp_path: Path) -> None:
    """`get` takes one object; of an endpoint it is a list of one, in JSON."""
    answers = {
        "endpoint/88": ENDPOINT,
        "identity/70011": IDENTITIES[1],
        "service/9": shapes.service(9, _balancer(selectable=0)),
        "cluster/nodes": {"self": "a/n", "nodes-added": [{"name": "a/n", "source": "local"}]},
        "endpoint": [ENDPOINT],
    }
    with agent_socket(tmp_path / "s", answers) as agent:
        where = ("-H", agent.path)
        assert isthmus("endpoint", "get", 88, *where).json == [ENDPOINT]
        assert isthmus("endpoint", "get", "-l", "app=shop", *where).json == [ENDPOINT]
        assert "k8s:app=shop" in isthmus("identity", "get", 70011, *where).out
        assert "10.201.7.70:8080/TCP" in isthmus("service", "get", 9, *where).out
        assert isthmus("node", "list", "-o", "json", *where).json[0]["name"] == "a/n"
        missing = isthmus("endpoint", "get", "-l", "app=none", *where)
        assert (missing.code, missing.out) == (1, "")
        assert "no endpoint of this node carries app=none" in missing.err
        neither = isthmus("endpoint", "get", *where)
        assert neither.code == 2
        assert "either the ID of an endpoint or --labels" in neither.err


def test_ip_list_asks_for_labels_only_when_it_shows_them(tmp_path: Path) -> None:
    """-n prints numbers and spares the agent the second question."""
    with agent_socket(tmp_path / "s", {"ip": IPS, "identity": IDENTITIES}) as agent:
        assert "k8s:app=shop" in isthmus("ip", "list", "-H", agent.path).out
        assert agent.asked == ["/v1/ip", "/v1/identity"]
        numeric = isthmus("ip", "list", "-n", "-H", agent.path)
        assert "70011" in numeric.out
        assert "k8s:app=shop" not in numeric.out
        assert agent.asked[2:] == ["/v1/ip"]


def test_endpoint_health_tells_by_its_exit_status(tmp_path: Path) -> None:
    """0 when the rows are in the kernel, 1 when not."""
    good = {"bpf": "OK", "policy": "Disabled", "overallHealth": "OK", "connected": True}
    bad = {**good, "bpf": "Failure", "overallHealth": "Failure"}
    answers = {"endpoint/1/healthz": good, "endpoint/2/healthz": bad}
    with agent_socket(tmp_path / "s", answers) as agent:
        well = isthmus("endpoint", "health", 1, "-H", agent.path)
        assert (well.code, well.out.splitlines()[0]) == (0, "Overall Health:   OK")
        assert isthmus("endpoint", "health", 2, "-H", agent.path).code == 1
