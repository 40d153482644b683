"""Values of the mesh store: golden vectors, refusals, tolerance."""

from pathlib import Path

import pytest

from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName, identity_range
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress
from model.labels import Label, Labels
from model.service import L4, Protocol, ServiceName
from wire.etcd import cluster_config_v1, freshness_v1, identity_v1, ip_v1, keys, node_v1, service_v1
from wire.etcd.errors import LocalWireError, RemoteWireError

GOLDEN = Path(__file__).parents[2] / "golden"
BERLIN, SEVEN = ClusterName("berlin"), ClusterId(7)
RANGE = identity_range(SEVEN)


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_cluster_config_is_written_as_published() -> None:
    """Decoding and encoding the vector gives the same bytes."""
    config = cluster_config_v1.decode(golden("cluster_config_v1.json"), "k")
    assert config.id == 7
    assert config.capabilities.synced_canaries
    assert config.capabilities.service_exports is False
    assert cluster_config_v1.encode(config) == golden("cluster_config_v1.json")


def test_node_is_written_as_published() -> None:
    """Decoding and encoding the vector gives the same bytes."""
    node = node_v1.decode("b-worker-1", golden("node_v1.json"), BERLIN, SEVEN, "k")
    assert node.pod_cidrs == (parse_prefix("10.11.3.0/24"),)
    assert node.tunnel_endpoint() == parse_address("192.0.2.11")
    assert node_v1.encode(node) == golden("node_v1.json")


def test_identity_is_written_as_published() -> None:
    """Labels keep their canonical text."""
    identity = identity_v1.decode("491777", golden("identity_v1.txt"), BERLIN, RANGE, "k")
    assert identity.labels.get("app") == "shop"
    assert identity_v1.encode(identity.labels) == golden("identity_v1.txt")


def test_ip_is_written_as_published() -> None:
    """Decoding and encoding the vector gives the same bytes."""
    prefix, entry = ip_v1.decode("10.11.3.207", golden("ip_v1.json"), RANGE, "k")
    assert prefix == parse_prefix("10.11.3.207/32")
    assert entry.host_ip == parse_address("192.0.2.11")
    assert ip_v1.encode(parse_address("10.11.3.207"), entry) == golden("ip_v1.json")


def test_service_is_written_as_published() -> None:
    """Decoding and encoding the vector gives the same bytes."""
    service = service_v1.decode("web/shop", golden("service_v1.json"), BERLIN, SEVEN, "k")
    assert service.backends[parse_address("10.11.3.207")]["http"] == L4(8080, Protocol.TCP)
    assert service_v1.encode(service) == golden("service_v1.json")


def test_a_prefix_has_a_mask() -> None:
    """A prefix is keyed ``ip/length`` and carries its mask in base64."""
    prefix = parse_prefix("10.2.0.0/16")
    entry = EndpointAddress(None, NumericIdentity(2))
    data = ip_v1.encode(prefix, entry)
    assert b'"Mask":"//8AAA=="' in data
    assert keys.ip(prefix) == "cilium/state/ip/v1/default/10.2.0.0/16"
    assert ip_v1.decode("10.2.0.0/16", data, RANGE, "k") == (prefix, entry)


def test_names_are_read_in_any_case() -> None:
    """Field names of other writers may be in another case; port names are data and keep theirs."""
    data = golden("ip_v1.json").replace(b'"IP"', b'"ip"').replace(b'"HostIP"', b'"hostip"')
    assert ip_v1.decode("10.11.3.207", data, RANGE, "k")[1].host_ip == parse_address("192.0.2.11")
    text = golden("service_v1.json").replace(b'"cluster"', b'"CLUSTER"')
    text = text.replace(b'"Port"', b'"PORT"').replace(b'"http"', b'"Port"')
    service = service_v1.decode("web/shop", text, BERLIN, SEVEN, "k")
    assert service.backends[parse_address("10.11.3.207")]["Port"] == L4(8080, Protocol.TCP)


def test_both_cidr_forms_are_read() -> None:
    """Newer writers put the prefix as plain text."""
    data = golden("node_v1.json").replace(
        b'{"IP":"10.11.3.0","Mask":"////AA=="}', b'"10.11.3.0/24"'
    )
    node = node_v1.decode("b-worker-1", data, BERLIN, SEVEN, "k")
    assert node.pod_cidrs == (parse_prefix("10.11.3.0/24"),)


def test_a_remote_host_is_a_remote_node() -> None:
    """Identity 1 of another cluster is identity 6 here."""
    data = golden("ip_v1.json").replace(b"491777", b"1")
    assert ip_v1.decode("10.11.3.207", data, RANGE, "k")[1].identity == 6


def test_unknown_fields_do_no_harm() -> None:
    """A newer writer's extra field changes nothing."""
    data = golden("node_v1.json")[:-1] + b',"Novelty":{"x":[1]}}'
    assert node_v1.decode("b-worker-1", data, BERLIN, SEVEN, "k").name == "b-worker-1"


IP = golden("ip_v1.json")
NODE = golden("node_v1.json")
SERVICE = golden("service_v1.json")
REFUSED = {
    "ip: other key": lambda: ip_v1.decode("10.11.3.208", IP, RANGE, "k"),
    "ip: foreign identity": lambda: ip_v1.decode(
        "10.11.3.207", IP, identity_range(ClusterId(8)), "k"
    ),
    "ip: no address": lambda: ip_v1.decode("x", b'{"IP":"x"}', RANGE, "k"),
    "ip: mask": lambda: ip_v1.decode("10.0.0.0/8", b'{"IP":"10.0.0.0","Mask":"/wD/"}', RANGE, "k"),
    "ip: not JSON": lambda: ip_v1.decode("10.11.3.207", b"\xff{", RANGE, "k"),
    "ip: a list": lambda: ip_v1.decode("10.11.3.207", b"[1]", RANGE, "k"),
    "ip: too large": lambda: ip_v1.decode("1.1.1.1", b" " * 2_000_000, RANGE, "k"),
    "node: other cluster": lambda: node_v1.decode(
        "b-worker-1", NODE, ClusterName("paris"), SEVEN, "k"
    ),
    "node: other name": lambda: node_v1.decode("b-worker-2", NODE, BERLIN, SEVEN, "k"),
    "node: other ID": lambda: node_v1.decode("b-worker-1", NODE, BERLIN, ClusterId(8), "k"),
    "node: CIDR": lambda: node_v1.decode(
        "b-worker-1", NODE.replace(b"////AA==", b"AAAA"), BERLIN, SEVEN, "k"
    ),
    "service: other key": lambda: service_v1.decode("web/store", SERVICE, BERLIN, SEVEN, "k"),
    "service: other ID": lambda: service_v1.decode("web/shop", SERVICE, BERLIN, ClusterId(8), "k"),
    "service: protocol": lambda: service_v1.decode(
        "web/shop", SERVICE.replace(b"TCP", b"XYZ"), BERLIN, SEVEN, "k"
    ),
    "identity: range": lambda: identity_v1.decode(
        "70000", golden("identity_v1.txt"), BERLIN, RANGE, "k"
    ),
    "identity: number": lambda: identity_v1.decode(
        "x", golden("identity_v1.txt"), BERLIN, RANGE, "k"
    ),
    "identity: other cluster": lambda: identity_v1.decode(
        "491777", golden("identity_v1.txt"), ClusterName("paris"), RANGE, "k"
    ),
    "identity: contradicted": lambda: identity_v1.decode(
        "491777",
        golden("identity_v1.txt") + b"x:io.cilium.k8s.policy.cluster=berlin;",
        BERLIN,
        RANGE,
        "k",
    ),
    "config: text": lambda: cluster_config_v1.decode(b'{"id":"seven"}', "k"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_record_is_refused_whole(case: str) -> None:
    """A record that breaks a rule raises, with its key."""
    with pytest.raises(RemoteWireError) as caught:
        REFUSED[case]()
    assert caught.value.where == "k"
    assert caught.value.why


def test_an_identity_without_labels_is_not_written() -> None:
    """There would be nothing to select it by."""
    with pytest.raises(LocalWireError):
        identity_v1.encode(Labels())


def test_labels_keep_empty_values_and_equal_signs() -> None:
    """The text is split at the first colon and the first equal sign."""
    labels = Labels.of([Label("a", ""), Label("b", "x=y:z"), Label("c", "1", "cni")])
    assert labels.text() == "k8s:a=;k8s:b=x=y:z;cni:c=1;"
    assert identity_v1.parse_labels(labels.text()) == labels


def test_keys_are_where_readers_look() -> None:
    """Names of keys and canaries, in state and cache."""
    assert keys.node(BERLIN, "w1") == "cilium/state/nodes/v1/berlin/w1"
    assert keys.identity(491777) == "cilium/state/identities/v1/id/491777"
    assert (
        keys.service(BERLIN, ServiceName("web", "shop"))
        == "cilium/state/services/v1/berlin/web/shop"
    )
    assert keys.canary("c1", keys.IDENTITIES) == "cilium/synced/c1/cilium/state/identities/v1"
    assert keys.canary("c1", keys.IP, cached=True) == "cilium/synced/c1/cilium/cache/ip/v1"
    assert keys.canary_resource("cilium/synced/c1/cilium/state/ip/v1", "c1") == keys.IP
    assert keys.canary_resource("cilium/synced/c1/else", "c1") is None
    assert keys.resource_prefix(keys.IP, "c1") == "cilium/state/ip/v1/default/"
    assert keys.resource_prefix(keys.IP, "c1", True) == "cilium/cache/ip/v1/c1/"
    assert keys.resource_prefix(keys.IDENTITIES, "c1", True) == "cilium/cache/identities/v1/c1/id/"


def test_freshness_is_no_canary_and_reads_back() -> None:
    """Its key lies below the canaries and names no type; what is no such value is refused."""
    key = keys.freshness("berlin")
    assert key.startswith(keys.canary_prefix("berlin"))
    assert keys.canary_resource(key, "berlin", cached=True) is None
    said = freshness_v1.Freshness("2026-01-01T00:00:00Z", True)
    assert freshness_v1.decode(freshness_v1.encode(said), key) == said
    for bad in (b"", b"2026-01-01T00:00:00Z", b"[]", b'{"connected":"yes"}', b"\xff"):
        with pytest.raises(RemoteWireError, match="freshness"):
            freshness_v1.decode(bad, key)
