"""What policy objects let in and out, case by case."""

from typing import Any

import pytest
import yaml

from model.policy_map import Direction
from policy.objects.settings import Settings
from tests.support import policy_engine
from tests.support.policy_engine import Engine
from tests.support.policy_world import USUAL, ccnp, cnp, knp, verdict

READERS = {"cnp": cnp, "ccnp": ccnp, "knp": knp}
SOURCES = {"cnp": policy_engine.cnp, "ccnp": policy_engine.ccnp, "knp": policy_engine.knp}
LITERAL = Settings(upstream_readings=True)
LOCAL = Settings(default_local_cluster=True)


def judged(kind: str, text: str, packets: str, settings: Settings = USUAL) -> str:
    """Verdicts for the web pod of packets from ``C``, of ``C:80/TCP``, to ``>C``.

    By a walk over the rules, and by the compiled map, which must let pass the same.
    """
    spec: dict[str, Any] = yaml.safe_load("{" + text + "}")
    if kind == "knp":
        spec.setdefault("podSelector", {})
    elif "nodeSelector" not in spec:
        spec.setdefault("endpointSelector", {"matchLabels": {"app": "web"}})
    reading = READERS[kind](spec, settings)
    assert not reading.errors, [str(e) for e in reading.errors]
    out = []
    for word in packets.split():
        where, _, packet = word.partition(":")
        direction = Direction.EGRESS if where.startswith(">") else Direction.INGRESS
        out.append(verdict(reading.rules, "W", direction, where.lstrip(">"), packet or "80/TCP"))
    compiled = Engine([SOURCES[kind](spec)], settings).say(packets).split()
    for walked, said in zip(out, compiled, strict=True):
        # A rule that is not enforced yet denies; for the walk it only allows nothing.
        assert walked == said or (walked, said) == ("drop", "deny"), (packets, out, compiled)
    return " ".join(out)


CLIENT = "{matchLabels: {app: client}}"
P80 = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]"

EMPTINESS = [
    ("cnp", "ingress: null", "C Wd", "allow allow"),
    ("cnp", "ingress: []", "C Wd", "allow allow"),
    ("cnp", "ingress: [{}]", "C H Wd >Wd", "drop allow drop allow"),
    ("ccnp", "ingress: [{}]", "C H Wd", "drop allow drop"),
    ("knp", "ingress: [{}]", "C Wd", "allow allow"),
    ("knp", "ingress: []", "C Wd >Wd", "drop drop allow"),
    ("knp", "policyTypes: [Ingress]", "C Wd >Wd", "drop drop allow"),
    ("knp", "policyTypes: [Egress]", "C >C", "allow drop"),
    ("knp", "policyTypes: [Ingress, Egress]", "C >C", "drop drop"),
    ("cnp", f"ingress: [{{{P80}}}]", "C Wd C:81/TCP", "allow allow drop"),
    ("cnp", f"ingress: [{{fromEndpoints: null, {P80}}}]", "C Wd", "allow allow"),
    ("cnp", f"ingress: [{{fromEndpoints: [], {P80}}}]", "C Wd", "drop drop"),
    ("cnp", f"egress: [{{toEntities: [], {P80}}}]", ">C >Wd", "drop drop"),
    ("cnp", f"ingress: [{{fromCIDR: [], {P80}}}]", "C Wd", "drop drop"),
    ("cnp", f"egress: [{{toServices: [], {P80}}}]", ">C >Wd", "drop drop"),
    ("cnp", f"egress: [{{toFQDNs: [], {P80}}}]", ">C >Wd", "drop drop"),
    ("cnp", f"ingress: [{{fromRequires: [{CLIENT}], {P80}}}]", "Wd", "drop"),
    ("cnp", "ingress: [{fromEndpoints: [{}]}]", "C R X H N Wd", "allow allow drop allow drop drop"),
    (
        "ccnp",
        "ingress: [{fromEndpoints: [{}]}]",
        "C R X H N Wd",
        "allow allow allow allow drop drop",
    ),
    ("cnp", f"ingress: [{{fromEndpoints: [{CLIENT}], toPorts: []}}]", "C:443/TCP O", "allow drop"),
    ("cnp", f"ingress: [{{fromEndpoints: [{CLIENT}]}}]", "C:0/ICMP C:9/UDP", "allow allow"),
    ("cnp", "ingress: [{toPorts: []}]", "C Wd", "drop drop"),
    (
        "cnp",
        f"ingress: [{{fromEndpoints: [{CLIENT}], toPorts: [{{}}]}}]",
        "C C:443/TCP",
        "drop drop",
    ),
    ("cnp", "ingress: [{toPorts: [{rules: {http: [{}]}}]}]", "C", "drop"),
    (
        "cnp",
        "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: []}}]}]",
        "C C:81/TCP",
        "allow drop",
    ),
    ("cnp", f"ingress: [{{{P80}, rules: {{http: [{{method: GET}}]}}}}]", "Wd", "allow"),
    ("knp", "ingress: [{from: []}]", "C Wd", "allow allow"),
    ("knp", "ingress: [{from: [{}]}]", "C Wd", "drop drop"),
    ("knp", "ingress: [{from: [{}], ports: [{port: 80}]}]", "C Wd Wd:81/TCP", "allow allow drop"),
    ("knp", "ingress: [{ports: []}]", "C Wd:5/UDP", "allow allow"),
    ("knp", "ingress: [{ports: [{}]}]", "Wd:5/TCP Wd:5/UDP", "allow drop"),
]


@pytest.mark.parametrize(("kind", "text", "packets", "expected"), EMPTINESS)
def test_what_is_left_out(kind: str, text: str, packets: str, expected: str) -> None:
    """Absent and empty lists differ; the rows are the whole truth table."""
    assert judged(kind, text, packets) == expected


def test_clusterwide_subject_that_may_be_init() -> None:
    """Its empty peer is everything, not all pods."""
    text = (
        "endpointSelector: {matchLabels: {'reserved:init': ''}}, ingress: [{fromEndpoints: [{}]}]"
    )
    spec = yaml.safe_load("{" + text + "}")
    rules = ccnp(spec).rules
    assert verdict(rules, "init", Direction.INGRESS, "Wd", "80/TCP") == "allow"


@pytest.mark.parametrize("key", ["reserved:init", "$init"])
def test_clusterwide_subject_that_is_not_init(key: str) -> None:
    """Naming it to leave it out does not let in the world: the empty peer is all pods."""
    text = (
        f"endpointSelector: {{matchExpressions: [{{key: '{key}', operator: DoesNotExist}}]}}, "
        "ingress: [{fromEndpoints: [{}]}]"
    )
    assert judged("ccnp", text, "C X R N Wd H") == "allow allow allow drop drop allow"


@pytest.mark.parametrize(
    ("text", "packets", "safe", "literal"),
    [
        (f"egress: [{{toFQDNs: [], {P80}}}]", ">Wd", "drop", "allow"),
        (f"egress: [{{toServices: [], {P80}}}]", ">Wd", "drop", "allow"),
        (f"ingress: [{{fromRequires: [{CLIENT}], {P80}}}]", "Wd C", "drop drop", "allow allow"),
        (f"ingress: [{{fromRequires: [], {P80}}}]", "Wd C", "drop drop", "allow allow"),
        (
            "ingress: [{fromEndpoints: [{matchExpressions: "
            "[{key: io.kubernetes.pod.namespace, operator: NotIn, values: [other]}]}]}]",
            "C D X Wd N",
            "allow allow drop drop drop",
            "allow allow drop allow allow",
        ),
        (
            "ingress: [{fromEndpoints: [{matchExpressions: "
            "[{key: 'k8s:io.cilium.k8s.namespace.labels.team', operator: DoesNotExist}]}]}]",
            "C X Wd N",
            "allow drop drop drop",
            "allow drop allow allow",
        ),
    ],
)
def test_safe_readings(text: str, packets: str, safe: str, literal: str) -> None:
    """Four readings let in more than was written; one switch has them."""
    assert judged("cnp", text, packets) == safe
    assert judged("cnp", text, packets, LITERAL) == literal


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(Settings(), "allow drop drop drop"), (LITERAL, "allow drop allow allow")],
)
def test_namespaces_that_are_not(settings: Settings, expected: str) -> None:
    """``namespaceSelector`` with ``NotIn``."""
    text = (
        "ingress: [{from: [{namespaceSelector: {matchExpressions: "
        "[{key: team, operator: NotIn, values: [x]}]}}]}]"
    )
    assert judged("knp", text, "C X Wd N", settings) == expected


NAMESPACE = "io.kubernetes.pod.namespace"
SELECTORS = [
    # A peer in the policy's namespace, unless it names one.
    ("cnp", f"fromEndpoints: [{CLIENT}]", "C X R", "allow drop allow"),
    ("cnp", f"fromEndpoints: [{{matchLabels: {{{NAMESPACE}: other}}}}]", "C X", "drop allow"),
    ("cnp", f"fromEndpoints: [{{matchLabels: {{'k8s:{NAMESPACE}': other}}}}]", "C X", "drop allow"),
    (
        "cnp",
        f"fromEndpoints: [{{matchExpressions: [{{key: {NAMESPACE}, operator: Exists}}]}}]",
        "C X D Wd",
        "allow allow allow drop",
    ),
    (
        "cnp",
        "fromEndpoints: [{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': x}}]",
        "C X",
        "drop allow",
    ),
    ("cnp", "fromEndpoints: [{matchLabels: {'reserved:remote-node': ''}}]", "N C", "allow drop"),
    (
        "cnp",
        "fromEndpoints: [{matchExpressions: "
        "[{key: io.cilium.k8s.policy.cluster, operator: Exists}]}]",
        "C R X",
        "allow allow drop",
    ),
    (
        "cnp",
        "fromEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [other]}]}]",
        "C O X Wd",
        "allow drop drop drop",
    ),
    ("ccnp", f"fromEndpoints: [{CLIENT}]", "C X R O", "allow allow allow drop"),
    (
        "ccnp",
        "fromEndpoints: [{matchExpressions: "
        "[{key: 'k8s:io.cilium.k8s.namespace.labels.team', operator: DoesNotExist}]}]",
        "C X Wd N",
        "allow drop drop drop",
    ),
    ("ccnp", "fromEndpoints: [{matchLabels: {'reserved:host': ''}}]", "C N", "drop drop"),
    (
        "cnp",
        "fromEndpoints: [{matchLabels: {app: client, io.cilium.k8s.policy.cluster: default}}]",
        "C R",
        "allow drop",
    ),
    ("cnp", "fromEndpoints: [{matchLabels: {'k8s:app': client}}]", "C O", "allow drop"),
    # Entities go by label.
    (
        "cnp",
        "fromEntities: [cluster]",
        "C R N K KX Wd X",
        "allow drop allow allow allow drop allow",
    ),
    ("cnp", "fromEntities: [world]", "Wd P3 KX N C", "allow allow allow drop drop"),
    ("cnp", "fromEntities: [all]", "Wd N C R", "allow allow allow allow"),
    ("cnp", "fromEntities: [none]", "Wd N C", "drop drop drop"),
    ("cnp", "fromEntities: [remote-node, health]", "N K health C", "allow allow allow drop"),
    ("cnp", "fromEntities: [kube-apiserver]", "K KX N", "allow allow drop"),
    # CIDRs are about what is outside.
    ("cnp", "fromCIDR: [0.0.0.0/0]", "C N K KX Wd", "drop drop drop allow allow"),
    ("cnp", "fromCIDR: [192.0.2.3]", "P3 P24", "allow drop"),
    (
        "cnp",
        "fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]",
        "T8 T12 T16",
        "allow drop drop",
    ),
    ("cnp", "fromCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.0/8]}]", "P3 P24", "drop drop"),
]


@pytest.mark.parametrize(("kind", "text", "packets", "expected"), SELECTORS)
def test_peers(kind: str, text: str, packets: str, expected: str) -> None:
    """Who is meant by a peer."""
    assert judged(kind, f"ingress: [{{{text}}}]", packets) == expected


@pytest.mark.parametrize(
    ("text", "packets", "expected"),
    [
        ("podSelector: {matchLabels: {app: client}}", "C X R", "allow drop allow"),
        ("namespaceSelector: {matchLabels: {team: x}}", "C X", "drop allow"),
        ("namespaceSelector: {}", "C X D Wd N", "allow allow allow drop drop"),
        (
            "namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchLabels: {app: web}}",
            "X W",
            "drop drop",
        ),
        ("podSelector: {}", "C X", "allow drop"),
        ("ipBlock: {cidr: 10.0.0.0/8, except: [10.96.0.0/12]}", "T8 T12 C", "allow drop drop"),
        ("ipBlock: {cidr: 192.0.2.0/24}", "P3 C X", "allow drop drop"),
    ],
)
def test_peers_of_network_policy(text: str, packets: str, expected: str) -> None:
    """Pods, namespaces, both, addresses."""
    assert judged("knp", f"ingress: [{{from: [{{{text}}}]}}]", packets) == expected


@pytest.mark.parametrize(
    ("kind", "text", "packets", "expected"),
    [
        ("cnp", f"fromEndpoints: [{CLIENT}]", "C R", "allow drop"),
        ("ccnp", "fromEndpoints: [{}]", "C R X", "allow drop allow"),
        (
            "cnp",
            "fromEndpoints: [{matchExpressions: "
            "[{key: io.cilium.k8s.policy.cluster, operator: Exists}]}]",
            "C R",
            "allow allow",
        ),
        (
            "cnp",
            "fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: c2}}]",
            "C R",
            "drop allow",
        ),
        ("cnp", "fromEndpoints: [{matchLabels: {'reserved:remote-node': ''}}]", "N", "allow"),
        ("knp", "from: [{podSelector: {}}]", "C R", "allow drop"),
        ("knp", "from: [{namespaceSelector: {}}]", "C R X", "allow drop allow"),
    ],
)
def test_local_cluster_by_default(kind: str, text: str, packets: str, expected: str) -> None:
    """``policy-default-local-cluster``: unless the selector speaks of clusters."""
    assert judged(kind, f"ingress: [{{{text}}}]", packets, LOCAL) == expected


PORTS = [
    ("{port: '80'}", "Wd:80/TCP Wd:80/UDP Wd:80/SCTP Wd:8/ICMP", "allow allow allow drop"),
    ("{port: '0', protocol: ANY}", "Wd:9/TCP Wd:9/UDP Wd:8/ICMP", "allow allow drop"),
    ("{port: '0', protocol: TCP}", "Wd:9/TCP Wd:9/UDP", "allow drop"),
    ("{port: '0', endPort: 1024}", "Wd:0/TCP Wd:1024/TCP Wd:1025/TCP", "allow allow drop"),
    ("{port: '80', endPort: 79}", "Wd:80/TCP Wd:79/TCP", "allow drop"),
    ("{port: '80', endPort: 0}", "Wd:80/TCP Wd:81/TCP", "allow drop"),
    ("{port: '80', endPort: 90}", "Wd:80/TCP Wd:90/TCP Wd:91/TCP", "allow allow drop"),
    ("{port: '010', protocol: TCP}", "Wd:8/TCP Wd:10/TCP", "allow drop"),
    ("{port: '8_0', protocol: TCP}", "Wd:80/TCP", "allow"),
    ("{port: http, protocol: TCP}", "Wd:8080/TCP Wd:80/TCP", "allow drop"),
    ("{port: HTTP, protocol: TCP}", "Wd:8080/TCP", "allow"),
    ("{port: http, protocol: UDP}", "Wd:8080/TCP Wd:8080/UDP", "drop drop"),
    ("{port: web, protocol: TCP}", "Wd:8080/TCP", "drop"),
    ("{port: http}", "Wd:8080/TCP Wd:8080/UDP", "allow drop"),
    ("{port: '0x50', protocol: TCP}", "Wd:80/TCP", "drop"),
    ("{port: '0b11', protocol: TCP}", "Wd:3/TCP", "drop"),
    ("{port: '80', protocol: tcp}", "Wd:80/TCP Wd:80/UDP", "allow drop"),
    ("{port: '80', protocol: ''}", "Wd:80/UDP", "allow"),
    ("{port: '80', protocol: SCTP}", "Wd:80/SCTP Wd:80/TCP", "allow drop"),
]


@pytest.mark.parametrize(("port", "packets", "expected"), PORTS)
def test_ports(port: str, packets: str, expected: str) -> None:
    """Numbers, names and ranges."""
    assert judged("cnp", f"ingress: [{{toPorts: [{{ports: [{port}]}}]}}]", packets) == expected


@pytest.mark.parametrize(
    ("field", "packets", "expected"),
    [
        ("{type: 8}", "Wd:8/ICMP Wd:0/ICMP Wd:8/ICMPv6", "allow drop drop"),
        ("{type: EchoRequest}", "Wd:8/ICMP", "allow"),
        ("{type: '8'}", "Wd:8/ICMP", "allow"),
        ("{family: IPv6, type: EchoRequest}", "Wd:128/ICMPv6 Wd:128/ICMP", "allow drop"),
        ("{type: 0}", "Wd:8/ICMP Wd:3/ICMP Wd:128/ICMPv6", "allow allow drop"),
        ("{type: EchoReply}", "Wd:8/ICMP", "allow"),
    ],
)
def test_icmp(field: str, packets: str, expected: str) -> None:
    """By number and by name; type 0 is every type, as in Cilium's map."""
    assert judged("cnp", f"ingress: [{{icmps: [{{fields: [{field}]}}]}}]", packets) == expected


DENY = f"ingressDeny: [{{fromEndpoints: [{CLIENT}]}}]"


@pytest.mark.parametrize(
    ("text", "packets", "expected"),
    [
        (DENY, "C O H", "deny drop allow"),
        (DENY + ", enableDefaultDeny: {ingress: false}", "C R O Wd", "deny deny allow allow"),
        ("ingress: [], enableDefaultDeny: {ingress: true}", "Wd", "allow"),
        (f"ingress: [{{{P80}}}], enableDefaultDeny: {{ingress: false}}", "Wd:81/TCP", "allow"),
        ("ingressDeny: [{}]", "C H", "drop allow"),
        ("ingressDeny: [{fromEntities: [all]}]", "C H", "deny deny"),
        (
            "ingress: [{toPorts: [{ports: [{port: '8000', endPort: 8100, protocol: TCP}]}]}], "
            "ingressDeny: [{toPorts: [{ports: [{port: '8080', endPort: 8081, protocol: TCP}]}]}]",
            "Wd:8079/TCP Wd:8080/TCP Wd:8082/TCP H:8080/TCP",
            "allow deny allow deny",
        ),
        (
            "egress: [{toCIDR: [0.0.0.0/0]}], "
            "egressDeny: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}]",
            ">T8 >T12 >T16",
            "deny allow allow",
        ),
        (
            "egress: [{toEntities: [all]}], egressDeny: [{toFQDNs: [{matchName: a.com}], "
            "toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]",
            ">C:443/TCP >Wd:80/TCP",
            "deny allow",
        ),
        (
            "egressDeny: [{toEndpoints: [{matchLabels: "
            "{namespace: kube-system, k8s-app: kube-dns}}]}]",
            ">D:53/UDP >C",
            "drop drop",
        ),
        (
            "egressDeny: [{toEndpoints: [{matchLabels: "
            "{io.kubernetes.pod.namespace: kube-system, k8s-app: kube-dns}}]}]",
            ">D:53/UDP >C",
            "deny drop",
        ),
    ],
)
def test_deny(text: str, packets: str, expected: str) -> None:
    """Deny rules, default deny and its switch."""
    assert judged("cnp", text, packets) == expected


def test_requirements_shut_out() -> None:
    """``fromRequires`` narrows what any object lets in, and lets in nothing itself."""
    rule = f"ingress: [{{fromRequires: [{CLIENT}]}}, {{fromEntities: [all]}}]"
    assert judged("cnp", rule, "C O X Wd") == "allow deny deny allow"


@pytest.mark.parametrize(
    "text",
    [
        "egress: [{toFQDNs: [{matchPattern: '*.example.com'}]}]",
        "egress: [{toEntities: [all], toPorts: [{ports: [{port: '53'}], "
        "rules: {dns: [{matchName: a.com}]}}]}]",
        "egress: [{toEntities: [all], authentication: {mode: required}}]",
        "egress: [{toGroups: [{aws: {region: x}}]}]",
        "egress: [{toEntities: [all], toPorts: [{ports: [{port: '53'}], serverNames: [a.com]}]}]",
        "egress: [{toEntities: [all], toPorts: [{ports: [{port: '53', protocol: TCP}], "
        "rules: {l7proto: r2d2, l7: [{cmd: READ}]}}]}]",
        "egress: [{toEntities: [all], toPorts: [{ports: [{port: '53'}], "
        "terminatingTLS: {secret: {name: s}}}]}]",
        "egress: [{toEntities: [all], toPorts: [{ports: [{port: '53'}], "
        "listener: {envoyConfig: {name: e}, name: l}}]}]",
    ],
)
def test_what_is_not_enforced_lets_nothing_through(text: str) -> None:
    """And says so."""
    assert judged("cnp", text, ">Wd:53/UDP >C:53/UDP") == "drop drop"
    reading = cnp(yaml.safe_load("{endpointSelector: {}, " + text + "}"))
    assert reading.unenforced
    assert any(rule.unenforced for rule in reading.rules[0].rules)


def test_plain_ports_beside_ruled_ones() -> None:
    """An item without rules is enforced."""
    text = (
        "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}, "
        "{ports: [{port: '81', protocol: TCP}]}]}]"
    )
    assert judged("cnp", text, "C:80/TCP C:81/TCP") == "drop allow"


STAR_WARS = {
    "endpointSelector": {"matchLabels": {"org": "empire", "class": "deathstar"}},
    "ingress": [
        {
            "fromEndpoints": [{"matchLabels": {"org": "empire"}}],
            "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
        }
    ],
}


def test_star_wars() -> None:
    """The demo's L4 policy is free of warnings; the L7 one is reported, not enforced."""
    reading = cnp(STAR_WARS)
    assert (reading.errors, reading.warnings) == ((), ())
    assert (reading.unknown, reading.unenforced) == ((), ())
    http = [{"method": "POST", "path": "/v1/request-landing"}]
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": http}}]
    ruled = STAR_WARS | {"ingress": [{"fromEndpoints": [{}], "toPorts": ports}]}
    assert [r.unenforced for r in cnp(ruled).rules[0].rules] == ["http rules"]


def test_what_is_to_be_told_of_verdicts_is_kept() -> None:
    """Word for word; none is nothing."""
    spec = {"endpointSelector": {}, "ingress": [{}]}
    for more, expected in (({"log": {"value": "for the audit"}}, "for the audit"), ({}, "")):
        (rule,) = cnp({**spec, **more}, USUAL).rules
        assert rule.log == expected
