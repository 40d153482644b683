"""Values of the mesh store: what is written is read back; anything else is refused whole."""

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from model.address import Address, Prefix, host_prefix
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName, identity_range
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress
from model.labels import CLUSTER_LABEL, Label, Labels
from model.node import EXTERNAL_IP, INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, Protocol, ServiceName, SharedService
from tests.support.addresses import addresses, prefixes, v4, v6
from wire.etcd import cluster_config_v1, freshness_v1, identity_v1, ip_v1, node_v1, service_v1
from wire.etcd.errors import RemoteWireError

BERLIN, SEVEN = ClusterName("berlin"), ClusterId(7)
RANGE = identity_range(SEVEN)

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
texts = st.text(max_size=20)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    cidrs = draw(st.lists(prefixes(), max_size=4))
    both = st.tuples(*(st.none() | s for s in (v4, v6)))
    return Node(
        cluster=BERLIN,
        name=NodeName(draw(names)),
        cluster_id=SEVEN,
        addresses=tuple(
            NodeAddress(kind, ip)
            for kind, ip in draw(
                st.lists(
                    st.tuples(st.sampled_from([INTERNAL_IP, EXTERNAL_IP]), addresses), max_size=3
                )
            )
        ),
        pod_cidrs=tuple(sorted(cidrs, key=lambda c: c.version)),
        health_ips=tuple(a for a in draw(both) if a is not None),
        ingress_ips=tuple(a for a in draw(both) if a is not None),
        encryption_key=draw(st.integers(0, 255)),
        wireguard_public_key=draw(texts),
        boot_id=draw(texts),
        labels=draw(st.dictionaries(texts, texts, max_size=3)),
        annotations=draw(st.dictionaries(texts, texts, max_size=3)),
    )


ports = st.dictionaries(
    addresses,
    st.dictionaries(
        texts,
        st.builds(L4, st.integers(0, 65535), st.sampled_from(list(Protocol))),
        max_size=3,
    ),
    max_size=3,
)
services = st.builds(
    SharedService,
    cluster=st.just(BERLIN),
    cluster_id=st.just(SEVEN),
    name=st.builds(ServiceName, names, names),
    frontends=ports,
    backends=ports,
    hostnames=st.dictionaries(addresses, texts, max_size=3),
    labels=st.dictionaries(texts, texts, max_size=3),
    selector=st.dictionaries(texts, texts, max_size=3),
    include_external=st.booleans(),
    shared=st.booleans(),
)
entries = st.builds(
    EndpointAddress,
    host_ip=st.none() | addresses,
    identity=st.sampled_from([0, 2, 6, 255, RANGE.first, RANGE.last]).map(NumericIdentity),
    key=st.integers(0, 255),
    namespace=texts,
    pod=texts,
    service_account=texts,
)
label_keys = st.text(st.characters(exclude_characters=";=:", exclude_categories=["Cs"]), min_size=1)
label_values = st.text(st.characters(exclude_characters=";", exclude_categories=["Cs"]))


@given(nodes())
def test_nodes(node: Node) -> None:
    """Round trip."""
    assert node_v1.decode(node.name, node_v1.encode(node), BERLIN, SEVEN, "k") == node


@given(services)
def test_services(service: SharedService) -> None:
    """Round trip, deep: labels and addresses, too."""
    read = service_v1.decode(str(service.name), service_v1.encode(service), BERLIN, SEVEN, "k")
    assert read == service
    assert (read.frontends, read.backends, read.hostnames, read.labels, read.selector) == (
        service.frontends,
        service.backends,
        service.hostnames,
        service.labels,
        service.selector,
    )


@given(addresses | prefixes(), entries)
def test_addresses(ip: Address | Prefix, entry: EndpointAddress) -> None:
    """Round trip; a key is read alike with and without its value."""
    prefix = ip if isinstance(ip, Prefix) else host_prefix(ip)
    assert ip_v1.decode(str(ip), ip_v1.encode(ip, entry), RANGE, "k") == (prefix, entry)
    assert ip_v1.decode_name(str(ip), "k") == prefix


@given(st.dictionaries(label_keys, label_values, max_size=5))
def test_identities(labels: dict[str, str]) -> None:
    """Round trip of the canonical text."""
    said = Labels.of([*Labels.k8s(labels), Label(CLUSTER_LABEL, BERLIN)])
    name = str(RANGE.first)
    read = identity_v1.decode(name, identity_v1.encode(said), BERLIN, RANGE, "k")
    assert (read.id, read.labels) == (RANGE.first, said)


@given(
    st.integers(0, 511),
    st.booleans(),
    st.booleans(),
    st.sampled_from([255, 511]),
    st.none() | st.booleans(),
)
def test_announcements(
    number: int, canaries: bool, cached: bool, most: int, exports: bool | None
) -> None:
    """Round trip."""
    config = ClusterConfig(ClusterId(number), Capabilities(canaries, cached, most, exports))
    assert cluster_config_v1.decode(cluster_config_v1.encode(config), "k") == config


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
FIELDS = {
    "node": "Name Cluster IPAddresses IPv4AllocCIDR IPv6SecondaryAllocCIDRs ClusterID Labels",
    "ip": "IP Mask HostIP ID Key K8sPodName",
    "service": "cluster namespace name frontends backends hostnames labels shared clusterID",
    "config": "id capabilities",
    "freshness": "heard connected error",
}


def decode_any(kind: str, data: bytes) -> None:
    match kind:
        case "node":
            node_v1.decode("n", data, BERLIN, SEVEN, "k")
        case "ip":
            ip_v1.decode("10.0.0.1", data, RANGE, "k")
        case "service":
            service_v1.decode("a/b", data, BERLIN, SEVEN, "k")
        case "config":
            cluster_config_v1.decode(data, "k")
        case "freshness":
            freshness_v1.decode(data, "k")
        case _:
            identity_v1.decode(str(RANGE.first), data, BERLIN, RANGE, "k")


def is_total(kind: str, data: bytes) -> None:
    said = "k: "
    with contextlib.suppress(RemoteWireError):
        try:
            decode_any(kind, data)
        except RemoteWireError as error:
            said = str(error)
            raise
    assert said.startswith("k: ")


@given(st.sampled_from([*FIELDS, "identity"]), st.binary(max_size=200))
def test_decoding_bytes_is_total(kind: str, data: bytes) -> None:
    """Any bytes give a value or the one error, which names the key."""
    is_total(kind, data)


@given(st.data(), st.sampled_from(list(FIELDS)))
def test_decoding_json_is_total(data: st.DataObject, kind: str) -> None:
    """The right fields with any content, in any case, give a value or the one error."""
    fields = data.draw(
        st.dictionaries(
            st.sampled_from(FIELDS[kind].split()).flatmap(
                lambda f: st.sampled_from([f, f.lower(), f.upper()])
            ),
            junk,
        )
    )
    is_total(kind, json.dumps(fields).encode())


@given(nodes(), st.randoms(use_true_random=False))
def test_names_in_any_case_mean_the_same(node: Node, random: Any) -> None:
    """A reader must not depend on the case of field names; data keeps its case."""

    def shout(value: Any) -> Any:
        if isinstance(value, list):
            return [shout(v) for v in value]
        if not isinstance(value, dict):
            return value
        keep = ("Labels", "Annotations")
        return {
            random.choice([k, k.lower(), k.upper()]): v if k in keep else shout(v)
            for k, v in value.items()
        }

    data = json.dumps(shout(json.loads(node_v1.encode(node)))).encode()
    read = node_v1.decode(node.name, data, BERLIN, SEVEN, "k")
    assert read == node
    assert (read.labels, read.annotations) == (node.labels, node.annotations)


@given(addresses, st.integers(256, (1 << 24) - 1))
def test_a_peer_speaks_for_its_own_identities_only(ip: Address, number: int) -> None:
    """Outside its range every number is refused, inside none."""
    data = ip_v1.encode(ip, EndpointAddress(None, NumericIdentity(number)))
    try:
        ip_v1.decode(str(ip), data, RANGE, "k")
        heard = True
    except RemoteWireError:
        heard = False
    assert heard == (number in RANGE)
    assert isinstance(ip, Address)
