"""Which objects are refused, where and why, and what becomes of the pods they select."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from model.policy_map import Direction
from policy.objects import cidr_group, expressions
from policy.objects.read import AUDIT_ANNOTATION, Kind, Source, read
from policy.objects.settings import Settings
from tests.support.policy_world import PEERS, ccnp, cnp, knp, selects, verdict

MANY = "[" + ", ".join(f"{{port: '{n}'}}" for n in range(1, 42)) + "]"
TYPES = "[" + ", ".join(f"{{type: {n}}}" for n in range(1, 42)) + "]"


PORT = "spec.ingress[0].toPorts[0].ports[0]"
RULES = "spec.egress[0].toPorts[0].rules"
REFUSED = [
    # Ports.
    (
        f"ingress: [{{toPorts: [{{ports: {MANY}}}]}}]",
        "spec.ingress[0].toPorts[0].ports",
        "at most 40",
    ),
    (
        f"ingressDeny: [{{toPorts: [{{ports: {MANY}}}]}}]",
        "spec.ingressDeny[0].toPorts[0].ports",
        "41",
    ),
    (
        f"ingress: [{{icmps: [{{fields: {TYPES}}}]}}]",
        "spec.ingress[0].icmps[0].fields",
        "at most 40",
    ),
    ("ingress: [{toPorts: [{ports: [{port: '080'}]}]}]", f"{PORT}.port", "octal"),
    ("ingress: [{toPorts: [{ports: [{port: '65536'}]}]}]", f"{PORT}.port", "65536"),
    ("ingress: [{toPorts: [{ports: [{port: ''}]}]}]", f"{PORT}.port", "no port"),
    ("ingress: [{toPorts: [{ports: [{port: 80}]}]}]", f"{PORT}.port", "quotes"),
    ("ingress: [{toPorts: [{ports: [{}]}]}]", PORT, "missing"),
    ("ingress: [{toPorts: [{ports: [{port: abcdefghijklmnop}]}]}]", f"{PORT}.port", "15"),
    ("ingress: [{toPorts: [{ports: [{port: '80', endPort: 70000}]}]}]", f"{PORT}.endPort", "65535"),
    ("ingress: [{toPorts: [{ports: [{port: '80', protocol: ICMP}]}]}]", f"{PORT}.protocol", "SCTP"),
    (
        "ingress: [{icmps: [{fields: [{type: Nope}]}]}]",
        "spec.ingress[0].icmps[0].fields[0].type",
        "Nope",
    ),
    (
        "ingress: [{icmps: [{fields: [{type: 256}]}]}]",
        "spec.ingress[0].icmps[0].fields[0].type",
        "255",
    ),
    (
        "ingress: [{icmps: [{fields: [{family: IPv6, type: Echo}]}]}]",
        "spec.ingress[0].icmps[0].fields[0].type",
        "IPv6",
    ),
    (
        "ingress: [{icmps: [{fields: [{type: 8}]}], toPorts: [{ports: [{port: '80'}]}]}]",
        "spec.ingress[0]",
        "icmps and toPorts",
    ),
    # Peers.
    (
        "ingress: [{fromEndpoints: [{}], fromEntities: [world]}]",
        "spec.ingress[0]",
        "combining fromEndpoints and fromEntities is not supported yet",
    ),
    (
        "egress: [{toCIDR: [10.0.0.0/8], toFQDNs: [{matchName: a.com}]}]",
        "spec.egress[0]",
        "combining toCIDR and toFQDNs",
    ),
    ("ingress: [{fromEntities: [World]}]", "spec.ingress[0].fromEntities[0]", "World"),
    ("ingress: [{fromNodes: [{}]}]", "spec.ingress[0].fromNodes", "enable-node-selector-labels"),
    ("ingress: [{fromCIDR: [10.0.0.0/33]}]", "spec.ingress[0].fromCIDR[0]", "no CIDR"),
    (
        "ingress: [{fromCIDRSet: [{cidr: 10.0.0.1}]}]",
        "spec.ingress[0].fromCIDRSet[0].cidr",
        "prefix",
    ),
    ("ingress: [{fromCIDRSet: [{}]}]", "spec.ingress[0].fromCIDRSet[0]", "exactly one"),
    (
        "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}]",
        "spec.ingress[0].fromCIDRSet[0]",
        "exactly one",
    ),
    (
        "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/9]}]}]",
        "spec.ingress[0].fromCIDRSet[0].except",
        "not inside",
    ),
    (
        "ingress: [{fromCIDRSet: [{cidr: '::/0', except: [10.0.0.0/8]}]}]",
        "spec.ingress[0].fromCIDRSet[0].except",
        "not inside",
    ),
    (
        "ingress: [{fromCIDRSet: [{cidr: 0.0.0.0/0, except: ['2001:db8::/32']}]}]",
        "spec.ingress[0].fromCIDRSet[0].except",
        "not inside",
    ),
    ("egress: [{toServices: [{}]}]", "spec.egress[0].toServices[0]", "exactly one"),
    ("egress: [{toFQDNs: [{}]}]", "spec.egress[0].toFQDNs[0]", "exactly one"),
    ("egress: [{toFQDNs: [{matchName: '*.a'}]}]", "spec.egress[0].toFQDNs[0].matchName", "no name"),
    # Above ports.
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: UDP}], rules: {http: [{}]}}]}]",
        RULES,
        "TCP",
    ),
    ("egress: [{toPorts: [{ports: [{port: '80'}], rules: {http: [{}]}}]}]", RULES, "TCP"),
    (
        "egress: [{toPorts: [{ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}}]}]",
        RULES,
        "port 0",
    ),
    (
        "ingress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a.com}]}}]}]",
        "spec.ingress[0].toPorts[0].rules",
        "egress only",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '53', endPort: 54}], "
        "rules: {dns: [{matchName: a.com}]}}]}]",
        RULES,
        "range",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
        "rules: {http: [{path: '/(?!x)'}]}}]}]",
        f"{RULES}.http[0].path",
        "look-around",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
        "rules: {http: [{method: '('}]}}]}]",
        f"{RULES}.http[0].method",
        "compiled",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
        "rules: {http: [{headers: {X-My-Header: true}}]}}]}]",
        f"{RULES}.http[0].headers",
        "must be a list",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], "
        "rules: {http: [{}], kafka: [{}]}}]}]",
        RULES,
        "combined",
    ),
    (
        "ingress: [{toPorts: [{ports: [{port: '80'}], "
        "listener: {envoyConfig: {name: e}, name: l}}]}]",
        "spec.ingress[0].toPorts[0].listener",
        "not allowed on ingress",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}, "
        "listener: {envoyConfig: {name: e}, name: l}}]}]",
        "spec.egress[0].toPorts[0].listener",
        "combined",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}, "
        "serverNames: [a.com]}]}]",
        "spec.egress[0].toPorts[0].serverNames",
        "terminatingTLS",
    ),
    ("egress: [{authentication: {mode: yes}}]", "spec.egress[0].authentication.mode", "text"),
    # Selectors.
    ("nodeSelector: {}", "spec.nodeSelector", "rule cannot have nodeSelector"),
    (
        "ingress: [{fromEndpoints: [{matchExpressions: [{key: a, operator: in}]}]}]",
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0].operator",
        "'in'",
    ),
    (
        "ingress: [{fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]}]",
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0]",
        "at least one value",
    ),
    (
        "ingress: [{fromEndpoints: [{matchLabels: {a: " + "b" * 64 + "}}]}]",
        "spec.ingress[0].fromEndpoints[0].matchLabels.a",
        "63",
    ),
    (
        "ingress: [{fromEndpoints: [{matchLabels: {'a b': c}}]}]",
        "spec.ingress[0].fromEndpoints[0].matchLabels.a b",
        "label key",
    ),
]


@pytest.mark.parametrize(("text", "path", "reason"), REFUSED)
def test_refused(text: str, path: str, reason: str) -> None:
    """The path of the field, the reason, and the pods that are selected closed."""
    spec = yaml.safe_load("{endpointSelector: {matchLabels: {app: web}}, " + text + "}")
    reading = cnp(spec)
    assert [e for e in reading.errors if e.path == path and reason in e.reason], [
        str(e) for e in reading.errors
    ]
    assert [r.closed for r in reading.rules] == [True]
    assert verdict(reading.rules, "W", Direction.INGRESS, "C", "80/TCP") == "closed"
    assert verdict(reading.rules, "C", Direction.INGRESS, "W", "80/TCP") == "allow"
    assert not cnp(spec, Settings(invalid_open=True)).rules


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("ingress: [{ports: [{protocol: ICMP}]}]", "spec.ingress[0].ports[0].protocol", "ICMP"),
        ("ingress: [{ports: [{port: 70000}]}]", "spec.ingress[0].ports[0].port", "70000"),
        ("ingress: [{from: [{ipBlock: {}}]}]", "spec.ingress[0].from[0].ipBlock", "missing"),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
            "spec.ingress[0].from[0]",
            "combined",
        ),
        ("policyTypes: [Outward]", "spec.policyTypes[0]", "Outward"),
    ],
)
def test_network_policy_refused(text: str, path: str, reason: str) -> None:
    """A NetworkPolicy that no API server would store, from a file."""
    reading = knp(yaml.safe_load("{podSelector: {}, " + text + "}"))
    assert [e for e in reading.errors if e.path == path and reason in e.reason], reading.errors
    assert reading.rules[0].closed


def test_many_ports_of_a_network_policy() -> None:
    """Each is an item of its own: the limit does not bind."""
    assert knp(
        {"podSelector": {}, "ingress": [{"ports": [{"port": n} for n in range(1, 51)]}]}
    ).valid


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]",
            "host ingress",
        ),
        (
            "egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]",
            "dns only",
        ),
    ],
)
def test_rules_above_ports_on_nodes(text: str, path: str) -> None:
    """Only dns on egress; and an invalid policy for nodes does not cut them off."""
    spec = yaml.safe_load("{nodeSelector: {}, " + text + "}")
    reading = ccnp(spec)
    assert path in str(reading.errors[0])
    assert not reading.rules
    assert ccnp(spec, Settings(invalid_closes_nodes=True)).rules[0].closed


def test_nodes() -> None:
    """A clusterwide policy for nodes, with dns above its ports."""
    dns = "{ports: [{port: '53'}], rules: {dns: [{matchName: a.com}]}}"
    spec = yaml.safe_load(
        "{nodeSelector: {matchLabels: {role: edge}}, egress: [{toPorts: [" + dns + "]}]}"
    )
    (found,) = ccnp(spec).rules
    assert found.on_nodes
    assert found.default_deny == {Direction.EGRESS}


@pytest.mark.parametrize(
    ("kind", "namespace", "selector", "selected"),
    [
        (Kind.CILIUM, "default", {}, "W C O R"),
        (Kind.CILIUM, "default", {"app": "client"}, "C R"),
        (Kind.CILIUM, "default", {"k8s:io.kubernetes.pod.namespace": "other"}, "W C O R"),
        (Kind.CILIUM, "default", {"io.kubernetes.pod.namespace": "other"}, ""),
        (Kind.CLUSTERWIDE, "", {}, " ".join(PEERS)),
        (Kind.CLUSTERWIDE, "", {"app": "client"}, "C X R"),
    ],
)
def test_subjects(kind: Kind, namespace: str, selector: Mapping[str, str], selected: str) -> None:
    """Whom a policy applies to."""
    spec = {"endpointSelector": {"matchLabels": selector}, "ingress": [{}]}
    (found,) = read(Source(kind, namespace, "p", spec), Settings()).rules
    assert {n for n, labels in PEERS.items() if selects(found.subject, labels)} == set(
        selected.split()
    )


def test_one_bad_spec_refuses_all() -> None:
    """``spec`` and ``specs`` together; the paths tell which one."""
    good: Any = {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}
    bad: Any = {"endpointSelector": {"matchLabels": {"app": "client"}}, "ingress": 5}
    reading = read(Source(Kind.CILIUM, "default", "p", good, [good, bad]), Settings())
    assert [e.path for e in reading.errors] == ["specs[1].ingress"]
    assert [r.closed for r in reading.rules] == [True] * 3
    fine = read(Source(Kind.CILIUM, "default", "p", good, [good]), Settings())
    assert [str(r.origin) for r in fine.rules] == [
        "CiliumNetworkPolicy default/p",
        "CiliumNetworkPolicy default/p [1]",
    ]


@pytest.mark.parametrize("selector", [{"matchLabels": {"app": 5}}, [], None, "app=web"])
def test_unreadable_subject_closes_all_it_may_mean(selector: object) -> None:
    """Too much rather than too little."""
    reading = cnp({"endpointSelector": selector, "ingress": [{}]})
    assert not reading.valid
    assert verdict(reading.rules, "W", Direction.EGRESS, "C", "80/TCP") == "closed"


@pytest.mark.parametrize(("spec", "specs"), [(None, None), (None, []), (5, None), (None, {"a": 1})])
def test_nothing_to_read(spec: object, specs: object) -> None:
    """An object without rules says so."""
    assert read(Source(Kind.CILIUM, "default", "p", spec, specs), Settings()).errors


@pytest.mark.parametrize(
    ("text", "audit", "warned"), [("true", True, 0), ("false", False, 0), ("yes", False, 1)]
)
def test_audit(text: str, audit: bool, warned: int) -> None:
    """One policy is put into audit by its annotation."""
    spec = {"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]}
    reading = read(
        Source(Kind.CILIUM, "default", "p", spec, None, {AUDIT_ANNOTATION: text}), Settings()
    )
    assert [r.audit for r in reading.rules] == [audit]
    assert len(reading.warnings) == warned


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("ingress: [{}]", "names nobody"),
        ("ingress: [{fromEndpoints: []}]", "fromEndpoints is empty"),
        ("ingress: [{fromEntities: []}]", "fromEntities is empty"),
        ("egress: [{toFQDNs: []}]", "toFQDNs is empty"),
        ("egress: [{toServices: []}]", "toServices is empty"),
        (
            "egress: [{toPorts: [{ports: [{port: '1', protocol: TCP}], rules: {http: []}}]}]",
            "every",
        ),
        ("egress: [{toPorts: [{ports: [{port: '1'}], rules: {l7proto: x}}]}]", "no l7"),
        ("ingress: [{fromEndpoints: [{matchLabels: {namespace: a}}]}]", "no label of pods"),
        ("ingress: [{toPorts: [{ports: [{port: '010'}]}]}]", "octal"),
        ("ingress: [{toPorts: [{ports: [{port: '0x50'}]}]}]", "not a number"),
        ("ingress: [{toPorts: [{ports: [{port: '80', endPort: 8}]}]}]", "ignored"),
        ("ingress: [{toPorts: [{ports: [{port: '80', protocol: tcp}]}]}]", "write TCP"),
        ("ingress: [{icmps: [{fields: [{type: 0}]}]}]", "every ICMP type"),
        ("ingress: [{toPorts: [{}]}]", "matches nothing"),
        (
            "ingress: [{fromCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.0/8]}]}]",
            "nothing is left",
        ),
        ("ingressDeny: [{fromEntities: [world]}]", "denies only"),
        ("ingress: [], enableDefaultDeny: {egress: true}", "no effect"),
        ("ingress: [{fromRequires: [{}]}]", "deprecated"),
        (
            "ingress: [{fromEndpoints: [{matchExpressions: "
            "[{key: 'reserved:host', operator: DoesNotExist}]}]}]",
            "nodes and the world",
        ),
    ],
)
def test_traps(text: str, warning: str) -> None:
    """What is legal and seldom meant."""
    reading = cnp(yaml.safe_load("{endpointSelector: {}, " + text + "}"))
    assert reading.valid
    assert any(warning in w.reason for w in reading.warnings), reading.warnings


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ({"io.kubernetes.pod.namespace": "other"}, "selects nothing: the policy"),
        ({"k8s:io.kubernetes.pod.namespace": "other"}, "own namespace"),
        ({"any:io.kubernetes.pod.namespace": "other"}, "selects nothing: the policy"),
        ({"io.cilium.k8s.policy.cluster": "paris"}, "cluster of its subject"),
        ({"reserved:host": ""}, "nodeSelector"),
    ],
)
def test_traps_of_subjects(labels: Mapping[str, str], warning: str) -> None:
    """Subjects that select nothing, or something else."""
    reading = cnp({"endpointSelector": {"matchLabels": labels}, "ingress": [{}]})
    assert any(warning in w.reason for w in reading.warnings), reading.warnings


def test_misplaced_rules_are_unknown() -> None:
    """``rules`` beside ``toPorts``, the mistake of a published article."""
    spec = {"endpointSelector": {}, "ingress": [{"toPorts": [], "rules": {"http": []}}]}
    assert [u.path for u in cnp(spec).unknown] == ["spec.ingress[0].rules"]


def test_cidr_group() -> None:
    """Prefixes, the labels they carry, and what is wrong."""
    spec = {"externalCIDRs": ["10.0.0.0/8", "192.0.2.1", "10.0.0.1/8", "nope"]}
    group = cidr_group.read("g", {"team": "x", "io.cilium/own": "1"}, spec)
    assert [str(p) for p in group.prefixes] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert group.labels.strings() == [
        "cidrgroup:io.cilium.policy.cidrgroupname/g",
        "cidrgroup:team=x",
    ]
    assert [e.path for e in group.errors] == ["spec.externalCIDRs[3]"]
    assert cidr_group.read("g", {}, {"externalCIDRs": []}).errors == ()
    assert cidr_group.read("g", {}, {}).errors
    assert cidr_group.read("g", {}, None).errors


def test_a_namespace_expression_in_a_subject_stays() -> None:
    """Only an equality is overwritten."""
    terms = [
        {"key": "k8s:io.kubernetes.pod.namespace", "operator": "In", "values": ["other"]},
    ]
    (found,) = cnp({"endpointSelector": {"matchExpressions": terms}, "ingress": [{}]}).rules
    assert not any(selects(found.subject, labels) for labels in PEERS.values())


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("/v1/.*", True),
        (r".*\/path", True),
        (r"\pL+[[:alpha:]]", True),
        (r"(?i)get|(?P<name>x)|(?<n>y)", True),
        (r"\x{10FFFF}\z|\123", True),
        (r"\Q(\E", True),
        ("a(?=b)", False),
        ("a(?<!b)", False),
        ("a(?>b)", False),
        (r"(a)\1", False),
        ("a++", False),
        ("a{1001}", False),
        ("(", False),
        ("[b-a]", False),
        ("x" * 5000, False),
    ],
)
def test_expressions(text: str, good: bool) -> None:
    """What RE2 can compile."""
    assert (not expressions.problem(text)) == good
