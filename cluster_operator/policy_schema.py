"""Schemas of what stands in policies: selectors, peers, ports, what is ruled above them. Pure."""

from cluster_operator.schema import (
    BOOLEAN,
    STRING,
    Schema,
    array,
    enum,
    fields,
    mapping,
    named,
)

MAX_PORTS = 40
_ENTITIES = (
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
)
_NAME = "[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*"
# Also what only the reader tells to be no port: Cilium's servers let it through.
_PORT = f"^([0-9]+(_[0-9]+)+|{_NAME})$"
_PORT_NUMBER: Schema = {"type": "integer", "format": "int32", "minimum": 0, "maximum": 65535}
_DNS_NAME: Schema = {"type": "string", "maxLength": 255, "pattern": r"^[-a-zA-Z0-9_.]*$"}
_DNS_PATTERN: Schema = {"type": "string", "maxLength": 255, "pattern": r"^[-a-zA-Z0-9_.*]*$"}
_SHORT: Schema = {"type": "string", "maxLength": 255}
_NON_EMPTY: Schema = {"type": "string", "minLength": 1}
_VALUE: Schema = {
    "type": "string",
    "maxLength": 63,
    "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
}
_TYPE_NUMBER = "[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5]"
_ICMP_TYPE: Schema = {
    "x-kubernetes-int-or-string": True,
    "pattern": f"^({_TYPE_NUMBER}|[A-Z][A-Za-z]+)$",
}

SELECTOR = fields(
    matchLabels=mapping(_VALUE),
    matchExpressions=array(
        fields(
            ("key", "operator"),
            key=STRING,
            operator=enum("In", "NotIn", "Exists", "DoesNotExist"),
            values=array(STRING),
        )
    ),
)
_CIDR_SET = array(
    named(
        {
            "cidr": STRING,
            "cidrGroupRef": {"type": "string", "minLength": 1, "maxLength": 253},
            "cidrGroupSelector": SELECTOR,
            "except": array(STRING),
        }
    )
)
_GROUPS = array(
    fields(
        aws=fields(
            labels=mapping(STRING),
            region=STRING,
            securityGroupsIds=array(STRING),
            securityGroupsNames=array(STRING),
        )
    )
)
_SERVICES = array(
    fields(
        k8sService=fields(namespace=STRING, serviceName=STRING),
        k8sServiceSelector=fields(("selector",), namespace=STRING, selector=SELECTOR),
    )
)
_NAMES = array(fields(matchName=_DNS_NAME, matchPattern=_DNS_PATTERN))
_SECRET = fields(("name",), name=STRING, namespace=STRING)
_TLS = fields(("secret",), secret=_SECRET, trustedCA=STRING, certificate=STRING, privateKey=STRING)
_HEADER = fields(
    ("name",),
    name=_NON_EMPTY,
    value=STRING,
    secret=_SECRET,
    mismatch=enum("LOG", "ADD", "DELETE", "REPLACE"),
)
_RULES = fields(
    http=array(
        fields(
            path=STRING,
            method=STRING,
            host=STRING,
            headers=array(STRING),
            headerMatches=array(_HEADER),
        )
    ),
    kafka=array(
        fields(
            role=enum("produce", "consume"),
            apiKey=_SHORT,
            apiVersion=_SHORT,
            clientID=_SHORT,
            topic=_SHORT,
        )
    ),
    dns=_NAMES,
    l7proto=STRING,
    l7=array(mapping(STRING)),
)
_LISTENER = fields(
    ("envoyConfig", "name"),
    envoyConfig=fields(
        ("name",),
        kind=enum("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"),
        name=_NON_EMPTY,
    ),
    name=_NON_EMPTY,
    priority={"type": "integer", "minimum": 1, "maximum": 100},
)


def _ports(limit: int | None) -> Schema:
    ports = array(
        fields(
            ("port",),
            port={"type": "string", "pattern": _PORT},
            endPort=_PORT_NUMBER,
            protocol=enum("TCP", "UDP", "SCTP", "ANY"),
        )
    )
    return ports if limit is None else ports | {"maxItems": limit}


def _icmps(limit: int | None) -> Schema:
    types = array(fields(("type",), family=enum("IPv4", "IPv6"), type=_ICMP_TYPE))
    return array(fields(fields=types if limit is None else types | {"maxItems": limit}))


def _peers(prefix: str) -> dict[str, Schema]:
    return {
        f"{prefix}Endpoints": array(SELECTOR),
        f"{prefix}Requires": array(SELECTOR),
        f"{prefix}Nodes": array(SELECTOR),
        f"{prefix}CIDR": array(STRING),
        f"{prefix}CIDRSet": _CIDR_SET,
        f"{prefix}Entities": array(enum(*_ENTITIES)),
        f"{prefix}Groups": _GROUPS,
    }


def _allow(prefix: str, more: dict[str, Schema]) -> Schema:
    ports = fields(
        ports=_ports(MAX_PORTS),
        rules=_RULES,
        terminatingTLS=_TLS,
        originatingTLS=_TLS,
        serverNames=array(_NON_EMPTY),
        listener=_LISTENER,
    )
    mode = enum("disabled", "required", "test-always-fail")
    own = {
        "toPorts": array(ports),
        "icmps": _icmps(MAX_PORTS),
        "authentication": fields(("mode",), mode=mode),
    }
    return array(named(_peers(prefix) | more | own))


def _deny(prefix: str, more: dict[str, Schema]) -> Schema:
    # No limits here: they are checked when the policy is read, as in Cilium.
    own = {"toPorts": array(fields(ports=_ports(None))), "icmps": _icmps(None)}
    return array(named(_peers(prefix) | more | own))


def rule() -> Schema:
    """One ``spec``."""
    services = {"toServices": _SERVICES}
    whole = named(
        {
            "endpointSelector": SELECTOR,
            "nodeSelector": SELECTOR,
            "ingress": _allow("from", {}),
            "ingressDeny": _deny("from", {}),
            "egress": _allow("to", services | {"toFQDNs": _NAMES}),
            "egressDeny": _deny("to", services),
            "enableDefaultDeny": fields(ingress=BOOLEAN, egress=BOOLEAN),
            "labels": array(fields(("key",), key=STRING, value=STRING, source=STRING)),
            "description": STRING,
            "log": fields(value=STRING),
        }
    )
    return whole | {"oneOf": [{"required": ["endpointSelector"]}, {"required": ["nodeSelector"]}]}
