"""CiliumNode, CiliumIdentity and CiliumEndpoint ↔ the model."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.endpoint import EndpointId, EndpointState
from model.identity import Identity, NumericIdentity
from model.ipcache import EndpointAddress
from model.labels import Label, Labels
from model.node import Node, NodeAddress, NodeName
from wire.k8s.cilium_endpoint import (
    CiliumEndpoint,
    NamedPort,
    decode_addresses,
    encode_endpoint,
    encode_status,
)
from wire.k8s.cilium_identity import (
    CiliumIdentity,
    decode_identity,
    decode_labels,
    encode_identity,
    encode_labels,
)
from wire.k8s.cilium_node import CiliumNode, decode_node, encode_node
from wire.k8s.errors import ObjectError
from wire.k8s.meta import ObjectMeta

BERLIN, SEVEN = ClusterName("berlin"), ClusterId(7)

NODE = Node(
    cluster=BERLIN,
    name=NodeName("worker-1"),
    cluster_id=SEVEN,
    addresses=(
        NodeAddress("InternalIP", parse_address("192.0.2.11")),
        NodeAddress("CiliumInternalIP", parse_address("10.11.3.1")),
    ),
    pod_cidrs=(parse_prefix("10.11.3.0/24"), parse_prefix("fd00:11::/64")),
    health_ips=(parse_address("10.11.3.40"),),
    encryption_key=3,
    boot_id="0d6c1f7e-1111-4222-8333-abcdefabcdef",
    labels={"kubernetes.io/hostname": "worker-1"},
)


def test_node_round_trip() -> None:
    """What an agent writes is what the publisher reads; the cluster is the reader's."""
    read = msgspec.convert(encode_node(NODE, "uid-1"), CiliumNode)
    assert decode_node(read, BERLIN, SEVEN) == NODE
    assert read.metadata.owner_references is not None
    assert read.metadata.owner_references[0].uid == "uid-1"


def test_node_takes_cidrs_of_pools_and_the_older_key_annotation() -> None:
    """Multi-pool prefixes follow the primary ones; the alias of the WireGuard key is read."""
    obj = msgspec.convert(
        {
            "metadata": {"name": "n", "annotations": {"io.cilium.network.wg-pub-key": "key="}},
            "spec": {
                "ipam": {
                    "podCIDRs": ["10.1.0.0/24"],
                    "pools": {"allocated": [{"pool": "mars", "cidrs": ["10.9.0.0/27"]}]},
                }
            },
        },
        CiliumNode,
    )
    node = decode_node(obj, BERLIN, SEVEN)
    assert node.pod_cidrs == (parse_prefix("10.1.0.0/24"), parse_prefix("10.9.0.0/27"))
    assert node.wireguard_public_key == "key="


def test_bad_node_is_named() -> None:
    """A prefix with host bits names the node."""
    obj = msgspec.convert(
        {"metadata": {"name": "n"}, "spec": {"ipam": {"podCIDRs": ["10.1.0.1/24"]}}}, CiliumNode
    )
    with pytest.raises(ObjectError, match=r"CiliumNode n: 10\.1\.0\.1/24"):
        decode_node(obj, BERLIN, SEVEN)


TEXTS = st.text(st.characters(codec="ascii", exclude_characters=":=;"), min_size=1, max_size=8)


@given(st.dictionaries(st.tuples(st.sampled_from(["k8s", "reserved"]), TEXTS), st.text()))
def test_security_labels_round_trip(pairs: dict[tuple[str, str], str]) -> None:
    """Labels survive the object form, whatever their values hold."""
    labels = Labels.of(Label(key, value, source) for (source, key), value in pairs.items())
    assert decode_labels(encode_labels(labels)) == labels


def test_identity_object() -> None:
    """The name is the number; labels for listing leave out the namespace's own labels."""
    labels = Labels.k8s(
        {
            "app": "shop",
            "io.cilium.k8s.namespace.labels.team": "a",
            "io.kubernetes.pod.namespace": "w",
        }
    )
    body = encode_identity(Identity(NumericIdentity(458753), labels))
    assert body["metadata"] == {
        "name": "458753",
        "labels": {"app": "shop", "io.kubernetes.pod.namespace": "w"},
    }
    assert body["security-labels"]["k8s:io.cilium.k8s.namespace.labels.team"] == "a"
    read = msgspec.convert(body, CiliumIdentity)
    assert decode_identity(read) == Identity(NumericIdentity(458753), labels)


@pytest.mark.parametrize("name", ["", "x", "-1", "0", "16777216", "٣"])
def test_identity_name_must_be_a_number(name: str) -> None:
    """Numbers outside the 24 bits of the wire are refused by name."""
    obj = CiliumIdentity(metadata=ObjectMeta(name=name), security_labels={"k8s:a": "b"})
    with pytest.raises(ObjectError, match="is no identity number"):
        decode_identity(obj)


def test_identity_without_labels_is_refused() -> None:
    """An identity stands for labels; one without them stands for nothing."""
    with pytest.raises(ObjectError, match="CiliumIdentity 300: it has no security-labels"):
        decode_identity(CiliumIdentity(metadata=ObjectMeta(name="300")))


def test_endpoint_round_trip() -> None:
    """Both families of a pod come out with its identity, node, namespace and name."""
    status = encode_status(
        endpoint=EndpointId(12),
        state=EndpointState.READY,
        identity=Identity(NumericIdentity(458753), Labels.k8s({"app": "shop"})),
        addresses=(parse_address("10.11.3.207"), parse_address("fd00::207")),
        node=parse_address("192.0.2.11"),
        encryption_key=3,
        named_ports=[NamedPort(name="http", port=8080, protocol="TCP")],
        identifiers={"k8s-pod-name": "shop-1"},
    )
    body = encode_endpoint("web", "shop-1", "uid-1", {"app": "shop"}, status)
    expected = EndpointAddress(
        host_ip=parse_address("192.0.2.11"),
        identity=NumericIdentity(458753),
        key=3,
        namespace="web",
        pod="shop-1",
    )
    assert decode_addresses(msgspec.convert(body, CiliumEndpoint)) == {
        parse_address("10.11.3.207"): expected,
        parse_address("fd00::207"): expected,
    }
    assert status["state"] == "ready"
    assert status["identity"]["labels"] == ["k8s:app=shop"]


@pytest.mark.parametrize(
    "status",
    [None, {}, {"networking": {"addressing": None, "node": ""}}],
)
def test_endpoint_that_is_not_ready_has_no_addresses(status: object) -> None:
    """An endpoint on its way has nothing to publish."""
    assert decode_addresses(msgspec.convert({"status": status}, CiliumEndpoint)) == {}
