"""The resource definitions that Isthmus needs in a cluster. Pure.

Kinds, names and columns are those of cilium.io, which other tools look for.
"""

from typing import Any

from cluster_operator import policy_crds
from cluster_operator.definition import AGE, VERSION_LABEL, Column, definition
from cluster_operator.schema import (
    BOOLEAN,
    COUNT,
    INT64,
    INTEGER,
    STRING,
    TIME,
    Schema,
    array,
    enum,
    fields,
    mapping,
    named,
    opaque,
)
from model.endpoint import EndpointState

_PAIR = fields(ipv4=STRING, ipv6=STRING)
_OWNED = mapping(fields(owner=STRING, resource=STRING))
_NAMED_PORT = fields(name=STRING, port=INTEGER, protocol=STRING)
# States other agents may write, beside ours.
_STATES = (
    "creating",
    "not-ready",
    "waiting-to-regenerate",
    *(state.value for state in EndpointState),
)


def _identity() -> Schema:
    return named({"security-labels": mapping(STRING)}, ("security-labels",))


def _node() -> Schema:
    addresses = array(fields(type=STRING, ip=STRING))
    pools = fields(
        requested=array(
            named(
                {
                    "pool": {"type": "string", "minLength": 1},
                    "needed": named({"ipv4-addrs": INTEGER, "ipv6-addrs": INTEGER}),
                },
                ("pool",),
            )
        ),
        allocated=array(
            fields(("pool",), pool={"type": "string", "minLength": 1}, cidrs=array(STRING))
        ),
    )
    ipam = named(
        {
            "podCIDRs": array(STRING),
            "pool": _OWNED,
            "ipv6-pool": _OWNED,
            "pools": pools,
            "min-allocate": COUNT,
            "max-allocate": COUNT,
            "pre-allocate": COUNT,
            "max-above-watermark": COUNT,
            "static-ip-tags": mapping(STRING),
        }
    )
    spec = fields(
        addresses=addresses,
        bootid=STRING,
        encryption=fields(key=INTEGER),
        health=_PAIR,
        ingress=_PAIR,
        instance_id=STRING,
        nodeidentity=INT64,
        ipam=ipam,
        # Clouds' own address management, which Isthmus does not do.
        eni=opaque(),
        azure=opaque(),
        alibaba_cloud=opaque(),
    )
    used = named(
        {
            "used": _OWNED,
            "ipv6-used": _OWNED,
            "pod-cidrs": mapping(fields(status=enum("released", "depleted", "in-use"))),
            "release-ips": mapping(STRING),
            "release-ipv6s": mapping(STRING),
            "operator-status": fields(error=STRING),
            "assigned-static-ip": STRING,
        }
    )
    status = fields(ipam=used, eni=opaque(), azure=opaque(), alibaba_cloud=opaque())
    return fields(("spec",), spec=spec, status=status)


def _direction() -> Schema:
    rules = array(
        named(
            {
                "identity": INT64,
                "identity-labels": mapping(STRING),
                "dest-port": INTEGER,
                "protocol": INTEGER,
            }
        )
    )
    return fields(
        ("enforcing",),
        enforcing=BOOLEAN,
        state=enum("enforcing", "non-enforcing", "disabled"),
        adding=rules,
        allowed=rules,
        denied=rules,
        removing=rules,
    )


def _controller() -> Schema:
    configuration = named({"error-retry": BOOLEAN, "error-retry-base": INT64, "interval": INT64})
    outcome = named(
        {
            "success-count": INT64,
            "failure-count": INT64,
            "consecutive-failure-count": INT64,
            "last-failure-msg": STRING,
            "last-failure-timestamp": STRING,
            "last-success-timestamp": STRING,
        }
    )
    return fields(name=STRING, uuid=STRING, configuration=configuration, status=outcome)


def _endpoint() -> Schema:
    identifiers = (
        "cni-attachment-id",
        "container-id",
        "container-name",
        "docker-endpoint-id",
        "docker-network-id",
        "k8s-namespace",
        "k8s-pod-name",
        "pod-name",
    )
    status = named(
        {
            "id": INT64,
            "state": enum(*dict.fromkeys(_STATES)),
            "identity": fields(id=INT64, labels=array(STRING)),
            "networking": fields(("addressing",), addressing=array(_PAIR), node=STRING),
            "encryption": fields(key=INTEGER),
            "named-ports": array(_NAMED_PORT),
            "external-identifiers": named(dict.fromkeys(identifiers, STRING)),
            "health": fields(bpf=STRING, policy=STRING, overallHealth=STRING, connected=BOOLEAN),
            "policy": fields(ingress=_direction(), egress=_direction()),
            "controllers": array(_controller()),
            "log": array(fields(code=STRING, message=STRING, state=STRING, timestamp=TIME)),
        }
    )
    return fields(status=status)


def _address_column(name: str) -> Column:
    return name, "string", f'.spec.addresses[?(@.type=="{name}")].ip', 0


def definitions() -> tuple[dict[str, Any], ...]:
    """All definitions, ready to be created."""
    namespace = r".metadata.labels.io\.kubernetes\.pod\.namespace"
    return (
        definition(
            "CiliumIdentity",
            "ciliumidentities",
            "ciliumidentity",
            "Cluster",
            ["ciliumid"],
            [("Namespace", "string", namespace, 0), AGE],
            _identity(),
            True,
        ),
        definition(
            "CiliumNode",
            "ciliumnodes",
            "ciliumnode",
            "Cluster",
            ["cn", "ciliumn"],
            [_address_column("CiliumInternalIP"), _address_column("InternalIP"), AGE],
            _node(),
            True,
        ),
        definition(
            "CiliumEndpoint",
            "ciliumendpoints",
            "ciliumendpoint",
            "Namespaced",
            ["cep", "ciliumep"],
            [
                ("Security Identity", "integer", ".status.identity.id", 0),
                ("Ingress Enforcement", "string", ".status.policy.ingress.state", 1),
                ("Egress Enforcement", "string", ".status.policy.egress.state", 1),
                ("Endpoint State", "string", ".status.state", 0),
                ("IPv4", "string", ".status.networking.addressing[0].ipv4", 0),
                ("IPv6", "string", ".status.networking.addressing[0].ipv6", 0),
            ],
            _endpoint(),
            False,
        ),
        *policy_crds.definitions(),
    )


def version_of(labels: dict[str, str]) -> tuple[int, ...]:
    """The schema version a definition carries; empty when it has none that is readable."""
    parts = labels.get(VERSION_LABEL, "").split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else ()
