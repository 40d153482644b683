"""Policy objects: what is read of them is enforced as a whole or closed as a whole."""

from collections.abc import Callable
from typing import Any

import msgspec

from policy.objects import cidr_group
from policy.objects.read import Kind, Source, read
from policy.objects.settings import Settings
from wire.k8s.policy import CidrGroupObject, PolicyObject

READINGS = (
    Settings(),
    Settings(upstream_readings=True, default_local_cluster=True, node_selectors=True),
)
ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

CILIUM: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "web"},
    "spec": {
        "endpointSelector": {
            "matchLabels": {"k8s:app": "web"},
            "matchExpressions": [{"key": "a/b", "operator": "NotIn", "values": ["x"]}],
        },
        "enableDefaultDeny": {"ingress": False},
        "labels": [{"key": "a", "value": "b", "source": "c"}],
        "ingress": [
            {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "80", "endPort": 90}]}]},
            {"fromEntities": ["cluster"], "icmps": [{"fields": [{"type": "EchoRequest"}]}]},
            {"fromRequires": [{"matchLabels": {"a": "b"}}]},
            {
                "toPorts": [
                    {
                        "ports": [{"port": "http", "protocol": "TCP"}],
                        "rules": {"http": [{"path": "/[a-z]+(x|y){2,3}", "method": "GET"}]},
                    }
                ],
                "authentication": {"mode": "required"},
            },
        ],
        "ingressDeny": [{"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}],
        "egress": [
            {"toFQDNs": [{"matchPattern": "*.example.com"}]},
            {"toServices": [{"k8sService": {"serviceName": "s", "namespace": "n"}}]},
            {"toCIDRSet": [{"cidrGroupSelector": {"matchLabels": {"a": "b"}}}]},
            {"toCIDR": ["2001:db8::/32", "192.0.2.1"]},
        ],
    },
}
KUBERNETES: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "web"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [
                    {"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "x"}}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ],
                "ports": [{"port": 80, "endPort": 90}, {"port": "http", "protocol": "UDP"}, {}],
            }
        ],
    },
}
GROUP = {"metadata": {"name": "g", "labels": {"a": "b"}}, "spec": {"externalCIDRs": ["10.0.0.0/8"]}}


def seed(value: object) -> bytes:
    """A good one, to begin with."""
    return msgspec.json.encode(value)


def policy(kind: Kind, namespace: str) -> Callable[[bytes], None]:
    """Reads as that kind."""

    def run(data: bytes) -> None:
        found = msgspec.json.decode(data, type=PolicyObject)
        source = Source(kind, namespace, found.metadata.name, found.spec, found.specs)
        for settings in READINGS:
            reading = read(source, settings)
            assert all(rule.closed != reading.valid for rule in reading.rules)
            assert reading.rules or not reading.valid
            assert hash(reading.rules) == hash(read(source, settings).rules)
            assert all(e.path and str(e) for e in (*reading.errors, *reading.warnings))

    return run


def group(data: bytes) -> None:
    """A CIDR group: prefixes once each."""
    found = msgspec.json.decode(data, type=CidrGroupObject)
    read_ = cidr_group.read(found.metadata.name, found.metadata.labels or {}, found.spec)
    assert len(set(read_.prefixes)) == len(read_.prefixes)
