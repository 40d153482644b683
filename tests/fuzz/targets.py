"""One target per decoder: good values to begin with, and what must hold of any others.

A target decodes. It may raise its decoder's one error; when it does not, what was read must survive
being written and read again.
"""

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from kvstore.config import StoreConfigError, parse_store_config
from model.address import parse_address
from model.cluster import ClusterId, ClusterName, identity_range
from policy.objects.read import Kind
from tests.fuzz import policies
from tests.fuzz.mutate import Mutation, of_bytes, of_json
from wire.etcd import (
    cluster_config_v1,
    endpointslice_v1,
    freshness_v1,
    identity_v1,
    ip_v1,
    keys,
    node_v1,
    service_export_v1,
    service_v1,
)
from wire.etcd.errors import RemoteWireError
from wire.k8s import (
    cilium_endpoint,
    cilium_identity,
    cilium_node,
    endpointslice,
    pod,
    service,
)
from wire.k8s.errors import ObjectError

GOLDEN = Path(__file__).parents[1] / "golden"
BERLIN, SEVEN = ClusterName("berlin"), ClusterId(7)
RANGE = identity_range(SEVEN)
KEY = "the/key"


@dataclass(frozen=True)
class Target:
    """How to feed one decoder."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    errors: tuple[type[Exception], ...] = (RemoteWireError,)
    ways: Sequence[Mutation] = (of_bytes, of_json)


def _golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def _same(first: Any, second: Any) -> None:
    assert first == second, f"{first!r} was read back as {second!r}"


def config(data: bytes) -> None:
    read = cluster_config_v1.decode(data, KEY)
    _same(read, cluster_config_v1.decode(cluster_config_v1.encode(read), KEY))


def freshness(data: bytes) -> None:
    read = freshness_v1.decode(data, KEY)
    _same(read, freshness_v1.decode(freshness_v1.encode(read), KEY))


def node(data: bytes) -> None:
    read = node_v1.decode("b-worker-1", data, BERLIN, SEVEN, KEY)
    again = node_v1.decode("b-worker-1", node_v1.encode(read), BERLIN, SEVEN, KEY)
    # Of several health addresses of a family one is written.
    _same((read.name, set(read.pod_cidrs)), (again.name, set(again.pod_cidrs)))


def identity(data: bytes) -> None:
    read = identity_v1.decode("491777", data, BERLIN, RANGE, KEY)
    again = identity_v1.decode("491777", identity_v1.encode(read.labels), BERLIN, RANGE, KEY)
    _same(read, again)


def address(data: bytes) -> None:
    _, entry = ip_v1.decode("10.11.3.207", data, RANGE, KEY)
    data = ip_v1.encode(parse_address("10.11.3.207"), entry)
    _same(entry, ip_v1.decode("10.11.3.207", data, RANGE, KEY)[1])


def record(data: bytes) -> None:
    read = service_v1.decode("web/shop", data, BERLIN, SEVEN, KEY)
    again = service_v1.decode("web/shop", service_v1.encode(read), BERLIN, SEVEN, KEY)
    _same((read, read.backends, read.zones), (again, again.backends, again.zones))


def export(data: bytes) -> None:
    read = service_export_v1.decode("web/shop", data, BERLIN, KEY)
    again = service_export_v1.decode("web/shop", service_export_v1.encode(read), BERLIN, KEY)
    _same((read.ports, read.type, read.labels), (again.ports, again.type, again.labels))


def slice_(data: bytes) -> None:
    read = endpointslice_v1.decode("web/shop-x7k2p", data, BERLIN, SEVEN, KEY)
    data = endpointslice_v1.encode(read)
    again = endpointslice_v1.decode("web/shop-x7k2p", data, BERLIN, SEVEN, KEY)
    _same((read.name, read.ports), (again.name, again.ports))
    _same([e.address for e in read.endpoints], [e.address for e in again.endpoints])


def repacked(data: bytes, rng: random.Random) -> bytes:
    """Change what was compressed, and compress it again."""
    try:
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 22)
    except (zstandard.ZstdError, MemoryError):
        return of_bytes(data, rng)
    return zstandard.ZstdCompressor().compress(of_bytes(plain, rng))


def names(data: bytes) -> None:
    """What follows a prefix in a key; keys reach us as text."""
    text = data.decode(errors="replace")
    readers = (
        ip_v1.decode_name,
        service_v1.decode_name,
        endpointslice_v1.decode_name,
        service_export_v1.decode_name,
        lambda name, key: identity_v1.decode_number(name, RANGE, key),
    )
    for read in readers:
        with contextlib.suppress(RemoteWireError):
            assert read(text, KEY) is not None
    assert keys.canary_resource(text, "berlin") is None


def store_config(data: bytes) -> None:
    parse_store_config(data, KEY).targets()


def _object(kind: type[Any], decode: Callable[[Any], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        decode(msgspec.json.decode(data, type=kind))

    return run


K8S_ERRORS = (ObjectError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
META = b'"metadata":{"name":"x","namespace":"web","uid":"u","labels":{"a":"b"}}'
CONFIG_YAML = b"""endpoints: [https://berlin.mesh:2379]
trusted-ca-file: /ca
cilium-host-aliases: [{hostname: berlin.mesh, ips: [192.0.2.1]}]
"""

TARGETS: dict[str, Target] = {
    "cluster-config": Target(config, [_golden("cluster_config_v1.json")]),
    "freshness": Target(freshness, [b'{"heard":"2026-01-01T00:00:00Z","connected":true}']),
    "nodes": Target(node, [_golden("node_v1.json"), _golden("node_v1_text.json")]),
    "identities": Target(identity, [_golden("identity_v1.txt")], ways=(of_bytes,)),
    "ip": Target(address, [_golden("ip_v1.json")]),
    "services": Target(record, [_golden("service_v1.json"), _golden("service_v1_zones.json")]),
    "serviceexports": Target(export, [_golden("service_export_v1.json")]),
    "endpointslices": Target(
        slice_, [_golden("endpointslice_v1.zst")], ways=(of_bytes, repacked, repacked)
    ),
    "names": Target(
        names, [b"10.0.0.0/8", b"fd00::1", b"web/shop", b"491777", b"<nil>"], ways=(of_bytes,)
    ),
    "store-config": Target(store_config, [CONFIG_YAML], (StoreConfigError,), (of_bytes,)),
    "k8s-node": Target(
        _object(cilium_node.CiliumNode, lambda o: cilium_node.decode_node(o, BERLIN, SEVEN)),
        [
            b"{" + META + b',"spec":{"addresses":[{"type":"InternalIP","ip":"192.0.2.1"}],'
            b'"ipam":{"podCIDRs":["10.1.0.0/24"]},"encryption":{"key":3}}}'
        ],
        K8S_ERRORS,
    ),
    "k8s-identity": Target(
        _object(cilium_identity.CiliumIdentity, cilium_identity.decode_identity),
        [b'{"metadata":{"name":"491777"},"security-labels":{"k8s:app":"shop"}}'],
        K8S_ERRORS,
    ),
    "k8s-endpoint": Target(
        _object(cilium_endpoint.CiliumEndpoint, cilium_endpoint.decode_addresses),
        [
            b"{" + META + b',"status":{"identity":{"id":491777},"networking":{"node":"192.0.2.1",'
            b'"addressing":[{"ipv4":"10.1.0.5"}]},"encryption":{"key":0}}}'
        ],
        K8S_ERRORS,
    ),
    "k8s-service": Target(
        _object(service.Service, service.decode_service),
        [
            b'{"metadata":{"name":"x","namespace":"web","annotations":{"service.cilium.io/global":"true"}},'
            b'"spec":{"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9"],"ports":[{"name":"http",'
            b'"port":80,"targetPort":8080,"protocol":"TCP"}],"selector":{"app":"x"}}}'
        ],
        K8S_ERRORS,
    ),
    "k8s-slice": Target(
        _object(endpointslice.EndpointSlice, endpointslice.decode_backends),
        [
            b"{"
            + META
            + b',"addressType":"IPv4","ports":[{"name":"http","port":8080}],"endpoints":'
            b'[{"addresses":["10.1.0.5"],"conditions":{"ready":true},"zone":"a","hints":{"forZones":[{"name":"a"}]}}]}'
        ],
        K8S_ERRORS,
    ),
    "k8s-pod": Target(
        _object(pod.Pod, lambda o: o.metadata.name),
        [
            b"{"
            + META
            + b',"spec":{"nodeName":"n"},"status":{"podIP":"10.1.0.5","phase":"Running"}}'
        ],
        K8S_ERRORS,
    ),
    "policy-cilium": Target(
        policies.policy(Kind.CILIUM, "web"),
        [policies.seed(policies.CILIUM)],
        policies.ERRORS,
        (of_json, of_json, of_bytes),
    ),
    "policy-clusterwide": Target(
        policies.policy(Kind.CLUSTERWIDE, ""),
        [policies.seed(policies.CILIUM)],
        policies.ERRORS,
        (of_json, of_json, of_bytes),
    ),
    "policy-kubernetes": Target(
        policies.policy(Kind.NETWORK_POLICY, "web"),
        [policies.seed(policies.KUBERNETES)],
        policies.ERRORS,
        (of_json, of_json, of_bytes),
    ),
    "policy-cidr-group": Target(
        policies.group, [policies.seed(policies.GROUP)], policies.ERRORS, (of_json, of_bytes)
    ),
}
