"""What a hostile peer may say: one lie in one field of one record each."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wire.etcd import keys

NAME, NUMBER = "beta", 2
IDENTITY = (NUMBER << 16) + 300
HOST, POD, CIDR = "172.31.9.66", "10.213.1.5", "10.213.1.0/24"
OUR_NODE, OUR_POD, OUR_SERVICE = "172.31.9.1", "10.203.1.200", "10.204.0.10"
THEIR_NODE, THEIR_POD = "172.31.9.88", "10.210.1.9"  # of another peer, whose name comes first
BIG = "x" * (600 << 10)


def node(**more: Any) -> dict[str, Any]:
    """A node as the reference writes it."""
    return {
        "Name": "m1",
        "Cluster": NAME,
        "IPAddresses": [{"Type": "InternalIP", "IP": HOST}],
        "IPv4AllocCIDR": CIDR,
        "ClusterID": NUMBER,
        "Source": "custom-resource",
        "EncryptionKey": 0,
        **more,
    }


def ip(**more: Any) -> dict[str, Any]:
    """A pod's address."""
    return {"IP": POD, "Mask": None, "HostIP": HOST, "ID": IDENTITY, "Key": 0, **more}


def service(**more: Any) -> dict[str, Any]:
    """A shared service."""
    return {
        "cluster": NAME,
        "namespace": "default",
        "name": "web",
        "frontends": {"10.214.0.10": {"http": {"Protocol": "TCP", "Port": 80}}},
        "backends": {POD: {"http": {"Protocol": "TCP", "Port": 8080}}},
        "includeExternal": True,
        "shared": True,
        "clusterID": NUMBER,
        **more,
    }


def labels(cluster: str = NAME, more: str = "") -> str:
    """An identity."""
    return f"k8s:app=shop;{more}k8s:io.cilium.k8s.policy.cluster={cluster};"


NODES, IPS = f"cilium/state/nodes/v1/{NAME}/", "cilium/state/ip/v1/default/"
IDS, SERVICES = "cilium/state/identities/v1/id/", f"cilium/state/services/v1/{NAME}/"


def encoded(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


HONEST: dict[str, bytes] = {
    f"{NODES}m1": encoded(node()),
    f"{IDS}{IDENTITY}": encoded(labels()),
    f"{IPS}{POD}": encoded(ip()),
    f"{SERVICES}default/web": encoded(service()),
}


@dataclass(frozen=True)
class Lie:
    name: str
    key: str
    value: bytes
    kind: str  # under which it is counted


def _node(field: str, kind: str, **more: Any) -> Lie:
    named = node(**{"Name": "liar", "IPAddresses": [], "IPv4AllocCIDR": None, **more})
    return Lie(f"node.{field}", f"{NODES}liar", encoded(named), kind)


def _ip(field: str, kind: str, key: str = "10.213.1.77", **more: Any) -> Lie:
    value = ip(**{"IP": key.split("/", maxsplit=1)[0], **more})
    return Lie(f"ip.{field}", f"{IPS}{key}", encoded(value), kind)


def _service(field: str, kind: str, **more: Any) -> Lie:
    value = service(**{"name": "api", **more})
    return Lie(f"service.{field}", f"{SERVICES}default/api", encoded(value), kind)


def _backend(address: str) -> dict[str, Any]:
    return {address: {"http": {"Protocol": "TCP", "Port": 8080}}}


def _internal(address: str, kind: str = "InternalIP") -> list[dict[str, str]]:
    return [{"Type": kind, "IP": address}]


def lies() -> Iterator[Lie]:
    """Every field of every record in turn."""
    record = "record-nodes"
    yield _node("Name", record, Name="m1")
    yield _node("Cluster", record, Cluster="alpha")
    yield _node("ClusterID", record, ClusterID=1)
    yield _node("EncryptionKey", record, EncryptionKey=70_000)
    yield _node("IPAddresses:text", record, IPAddresses=_internal("no address"))
    yield _node("IPv4AllocCIDR:text", record, IPv4AllocCIDR="10.0.0.0/99")
    yield _node("Labels:size", record, Labels={"a": BIG})
    yield _node("Annotations:size", record, Annotations={"a": BIG})
    for kind in ("InternalIP", "ExternalIP", "CiliumInternalIP"):
        yield _node(f"{kind}:ours", "own-node-address", IPAddresses=_internal(OUR_NODE, kind))
        yield _node(f"{kind}:pod", "own-pod-prefix", IPAddresses=_internal(OUR_POD, kind))
        yield _node(f"{kind}:vip", "own-service-address", IPAddresses=_internal(OUR_SERVICE, kind))
        yield _node(f"{kind}:theirs", "other-cluster", IPAddresses=_internal(THEIR_NODE, kind))
    yield _node("InternalIP:loopback", "unusable-address", IPAddresses=_internal("127.0.0.1"))
    yield _node("InternalIP:mapped", "record-nodes", IPAddresses=_internal("::ffff:172.31.9.1"))
    yield _node("InternalIP:metadata", "unusable-address", IPAddresses=_internal("169.254.169.254"))
    yield _node("InternalIP:multicast", "unusable-address", IPAddresses=_internal("224.0.0.1"))
    yield _node("IPv6HealthIP:scope", "record-nodes", IPv6HealthIP="fd00::1%eth0")
    for field in ("IPv4HealthIP", "IPv4IngressIP"):
        yield _node(f"{field}:pod", "own-pod-prefix", **{field: OUR_POD})
        yield _node(f"{field}:node", "own-node-address", **{field: OUR_NODE})
    host = _internal("172.31.9.99")
    for cidr, kind in (
        ("10.203.1.0/25", "own-pod-prefix"),
        ("10.203.0.0/16", "own-pod-prefix"),
        ("172.31.9.0/28", "own-node-address"),
        ("10.204.0.0/24", "own-service-address"),
        ("10.210.1.0/25", "other-cluster"),
        ("8.0.0.0/7", "wide-pod-cidr"),
        ("0.0.0.0/0", "own-pod-prefix"),
    ):
        field = f"IPv4AllocCIDR:{cidr}"
        found = "unusable-address" if cidr == "0.0.0.0/0" else kind
        yield _node(field, found, IPAddresses=host, IPv4AllocCIDR=cidr)
        field = f"IPv4SecondaryAllocCIDRs:{cidr}"
        yield _node(field, found, IPAddresses=host, IPv4SecondaryAllocCIDRs=[cidr])
    mapped = "::ffff:10.203.1.0/120"
    yield _node("IPv6AllocCIDR:mapped", "record-nodes", IPAddresses=host, IPv6AllocCIDR=mapped)
    many = [f"10.220.{n // 64}.{n % 64 * 4}/30" for n in range(300)]
    yield _node("CIDRs:many", "too-many-addresses", IPv4SecondaryAllocCIDRs=many)

    yield _ip("key", "record-ip", "10.213.1.77", IP="10.213.1.78")
    yield _ip("Mask:holes", "record-ip", Mask="/wD/AA==")
    yield _ip("ID:ours", "record-ip", ID=(1 << 16) + 300)
    yield _ip("ID:theirs", "record-ip", ID=(3 << 16) + 300)
    yield _ip("ID:negative", "record-ip", ID=-1)
    yield _ip("ID:kube-apiserver", "reserved-identity", ID=7)
    yield _ip("ID:well-known", "reserved-identity", ID=104)
    yield _ip("Key", "record-ip", Key=256)
    yield _ip("HostIP:text", "record-ip", HostIP="nowhere")
    yield _ip("HostIP:ours", "tunnel-endpoint", HostIP=OUR_NODE)
    yield _ip("HostIP:theirs", "tunnel-endpoint", HostIP=THEIR_NODE)
    yield _ip("HostIP:anyone", "tunnel-endpoint", HostIP="198.51.100.1")
    yield _ip("Metadata:size", "record-ip", Metadata=BIG)
    yield _ip("K8sPodName:size", "record-ip", K8sPodName=BIG)
    yield _ip("IP:pod", "own-pod-prefix", OUR_POD)
    yield _ip("IP:node", "own-node-address", OUR_NODE)
    yield _ip("IP:vip", "own-service-address", OUR_SERVICE)
    yield _ip("IP:their-pod", "undeclared-address", THEIR_POD)
    yield _ip("IP:their-node", "undeclared-address", THEIR_NODE)
    yield _ip("IP:undeclared", "undeclared-address", "10.213.2.5")
    yield _ip("IP:world", "undeclared-address", "198.51.100.7")
    yield _ip("IP:mapped", "record-ip", "::ffff:a0b:c0d")
    yield _ip("Mask:wide", "undeclared-address", "10.213.0.0/16", Mask="//8AAA==")
    yield _ip("Mask:everything", "own-pod-prefix", "0.0.0.0/0", Mask="AAAAAA==")

    yield Lie(
        "identity.number:ours", f"{IDS}{(1 << 16) + 300}", labels().encode(), "record-identities"
    )
    yield Lie("identity.number:reserved", f"{IDS}1", labels().encode(), "record-identities")
    yield Lie("identity.number:text", f"{IDS}x", labels().encode(), "record-identities")
    for name, text in (
        ("cluster:ours", labels("alpha")),
        ("cluster:theirs", labels("aardvark")),
        ("cluster:none", "k8s:app=shop;"),
        ("cluster:twice", labels(more="any:io.cilium.k8s.policy.cluster=alpha;")),
        ("size", labels(more=f"k8s:a={BIG};")),
    ):
        yield Lie(f"identity.{name}", f"{IDS}{IDENTITY + 1}", text.encode(), "record-identities")

    record = "record-services"
    yield _service("cluster", record, cluster="alpha")
    yield _service("namespace", record, namespace="kube-system")
    yield _service("name", record, name="web")
    yield _service("clusterID", record, clusterID=1)
    yield _service("frontends", record, frontends={"nowhere": {}})
    yield _service("port", record, backends={POD: {"http": {"Protocol": "TCP", "Port": 70_000}}})
    yield _service("protocol", record, backends={POD: {"http": {"Protocol": "IP", "Port": 1}}})
    yield _service("hostnames", record, hostnames={"nowhere": "x"})
    yield _service("backends:pod", "own-backend", backends=_backend(OUR_POD))
    yield _service("backends:node", "own-backend", backends=_backend(OUR_NODE))
    yield _service("backends:vip", "own-backend", backends=_backend(OUR_SERVICE))
    yield _service("backends:theirs", "undeclared-address", backends=_backend(THEIR_POD))
    yield _service("backends:world", "undeclared-address", backends=_backend("198.51.100.7"))
    yield _service("backends:loopback", "undeclared-address", backends=_backend("127.0.0.1"))


LIES = tuple(lies())
Claim = Callable[[], bool]
RESOURCES = keys.REQUIRED
