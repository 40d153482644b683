"""Corners of the reference's sentences on schema, selectors, ports, addresses and settings, through
the compiled map; each table's number is the reference's section."""

from typing import Any

import pytest
import yaml

from model.address import parse_prefix
from model.labels import Label, Labels
from policy.known import Mode, Options, PolicyService
from policy.objects.read import Kind, Source, read
from policy.objects.selectors import in_namespace
from policy.objects.settings import Settings
from policy.rules import Operator, Requirement, Selector
from policy.selectors import selects
from policy.trial import key_of
from tests.support.policy_engine import Engine, ccnp, cnp, knp

LITERAL, NODES = Settings(upstream_readings=True), Settings(node_selectors=True)
AUDIT = Settings(audit=True)
C = "{matchLabels: {app: client}}"
NAMESPACE = "io.kubernetes.pod.namespace"
CLUSTER = "io.cilium.k8s.policy.cluster"


def spec_of(text: str, **base: Any) -> dict[str, Any]:
    return base | yaml.safe_load("{" + text + "}")


def web(text: str) -> Source:
    return cnp(spec_of(text, endpointSelector={"matchLabels": {"app": "web"}}))


def wide(text: str) -> Source:
    return ccnp(spec_of(text, endpointSelector={"matchLabels": {"app": "web"}}))


def kubernetes(text: str) -> Source:
    return knp(spec_of(text, podSelector={}))


def term(key: str, operator: str, *values: str) -> str:
    more = f", values: [{', '.join(values)}]" if values else ""
    return f"{{matchExpressions: [{{key: '{key}', operator: {operator}{more}}}]}}"


SELECTORS = [
    # 1.1 Sources of keys.
    (web, "{matchLabels: {'$remote-node': ''}}", "N C", "allow drop"),
    (web, term("reserved:remote-node", "Exists"), "N C", "allow drop"),
    (web, "{matchLabels: {'cidr:app': client}}", "C N", "drop drop"),
    (web, "{matchLabels: {'any:app': client}}", "C O X", "allow drop drop"),
    (web, f"{{matchLabels: {{'any:{NAMESPACE}': other}}}}", "C X", "drop allow"),
    # 1.4 What frees a selector from the namespace that is implied, and what never leaks.
    (web, term("io.cilium.k8s.namespace.labels.team", "Exists"), "X C", "allow drop"),
    (web, term(CLUSTER, "NotIn", "c2"), "C R X Wd N", "allow drop drop drop drop"),
    (wide, term(CLUSTER, "Exists"), "C R Wd N", "allow allow drop drop"),
    (wide, term(CLUSTER, "NotIn", "c2"), "C R Wd N", "allow drop drop drop"),
    (wide, term("app", "DoesNotExist"), "D C Wd N", "allow drop drop drop"),
    (wide, term(NAMESPACE, "NotIn", "other"), "C X Wd N", "allow drop drop drop"),
    (wide, term(NAMESPACE, "DoesNotExist"), "C X Wd N", "drop drop drop drop"),
]


@pytest.mark.parametrize(("kind", "selector", "packets", "expected"), SELECTORS)
def test_selectors(kind: Any, selector: str, packets: str, expected: str) -> None:
    engine = Engine([kind(f"ingress: [{{fromEndpoints: [{selector}]}}]")])
    assert engine.say(packets) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (term(NAMESPACE, "NotIn", "other"), "allow drop allow allow"),
        (term(NAMESPACE, "DoesNotExist"), "drop drop allow allow"),
        (term("k8s:io.cilium.k8s.namespace.labels.team", "NotIn", "x"), "allow drop drop drop"),
    ],
)
def test_clusterwide_selectors_literally(selector: str, expected: str) -> None:
    """1.4: of a clusterwide policy the namespace leaks, labels of namespaces do not."""
    engine = Engine([wide(f"ingress: [{{fromEndpoints: [{selector}]}}]")], LITERAL)
    assert engine.say("C X Wd N") == expected


def test_service_accounts() -> None:
    """1.4: a peer, and a subject, by the account that its pods run as."""
    account = "{matchLabels: {io.cilium.k8s.policy.serviceaccount: robot}}"
    engine = Engine([web(f"ingress: [{{fromEndpoints: [{account}]}}]")])
    robot = [Label("io.cilium.k8s.policy.serviceaccount", "robot"), Label(NAMESPACE, "default")]
    engine.add("robot", 2001, Labels.of(robot))
    assert engine.say("robot C") == "allow drop"
    about = cnp(spec_of(f"endpointSelector: {account}, ingress: [{{}}]"))
    (rule,) = read(about, Settings()).rules
    assert selects(rule.subject, Labels.of(robot))
    assert Engine([about]).say("C") == "allow"


@pytest.mark.parametrize(("cluster", "expected"), [("c2", "allow"), ("default", "drop")])
def test_subjects_of_clusters(cluster: str, expected: str) -> None:
    """1.4, 4.13: a policy is enforced in the cluster of its subject and in no other."""
    labels = f"{{app: web, {CLUSTER}: {cluster}}}"
    source = cnp(spec_of(f"endpointSelector: {{matchLabels: {labels}}}, ingress: [{{}}]"))
    assert Engine([source]).say("C") == expected


P80 = "toPorts: [{ports: [{port: '80'}]}]"
RULES = [
    # 3.3, 4.1 Empty lists beside full ones.
    (f"ingress: [{{fromEndpoints: [{C}], icmps: []}}]", "C:8/ICMP C", "allow allow"),
    (f"ingress: [{{fromEndpoints: [{C}], icmps: [{{fields: []}}]}}]", "C:8/ICMP C", "drop drop"),
    (f"ingress: [{{fromEndpoints: [{C}], icmps: [], {P80}}}]", "C C:8/ICMP O", "allow drop drop"),
    ("ingress: [{icmps: []}]", "C C:8/ICMP", "drop drop"),
    ("ingress: [{icmps: [{}]}]", "C C:8/ICMP", "drop drop"),
    ("ingress: [{toPorts: [{}, {ports: [{port: '80'}]}]}]", "C C:81/TCP", "allow drop"),
    ("ingress: [{toPorts: [{ports: []}]}]", "C", "drop"),
    ("egress: [{toCIDRSet: [], " + P80 + "}]", ">T8 >C", "drop drop"),
    ("egress: [{toNodes: []}]", ">N >C", "drop drop"),
    ("egress: [{toGroups: [], " + P80 + "}]", ">Wd", "drop"),
    ("ingressDeny: [], egressDeny: []", "C >C", "allow allow"),
    ("ingressDeny: [{fromEndpoints: []}]", "C Wd", "drop drop"),
    ("ingressDeny: [{fromEndpoints: [], " + P80 + "}]", "C", "drop"),
    # 3.5 Rules above ports that say nothing are plain ports.
    ("ingress: [{toPorts: [{ports: [{port: '80'}], rules: {}}]}]", "C C:81/TCP", "allow drop"),
    ("ingress: [{toPorts: [{ports: [{port: '80'}], serverNames: []}]}]", "C", "allow"),
    ("ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {l7proto: x}}]}]", "C",
     "allow"),
    ("ingress: [{authentication: {mode: disabled}, fromEndpoints: [" + C + "]}]", "C O",
     "allow drop"),
    ("ingress: [{authentication: {mode: test-always-fail}, fromEndpoints: [" + C + "]}]", "C O",
     "deny drop"),
    # 2.3 Entities together; the node comes in whatever is written but a deny.
    ("ingress: [{fromEntities: [none]}]", "H C Wd", "allow drop drop"),
    ("ingress: [{fromEntities: [none, health]}]", "health Wd", "allow drop"),
    ("ingress: [{fromEntities: [init]}]", "init C", "allow drop"),
    ("ingress: [{fromEntities: [cluster]}]", "health init N R V6", "allow allow allow drop drop"),
    ("ingressDeny: [{fromEntities: [none]}]", "C", "drop"),
    # 4.3 Each direction for itself; null is not said.
    ("ingress: [{}], egress: [{}], enableDefaultDeny: {egress: false}", "C >C", "drop allow"),
    ("ingress: [{}], egress: [{}], enableDefaultDeny: {ingress: null}", "C >C", "drop drop"),
    ("ingress: [{}], enableDefaultDeny: null", "C >C", "drop allow"),
    ("ingressDeny: [{}], enableDefaultDeny: {ingress: false}", "C", "allow"),
    # 4.2.3, 4.6 A narrower deny in a wider allow, and the other way about, with and without peers.
    ("ingress: [{toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]}], ingressDeny: "
     f"[{{fromEndpoints: [{C}], toPorts: [{{ports: [{{port: '80', endPort: 85}}]}}]}}]",
     "C:80/TCP C:86/TCP C:80/UDP O:85/TCP", "deny allow deny allow"),
    (f"ingress: [{{fromEndpoints: [{C}], toPorts: [{{ports: [{{port: '82', protocol: TCP}}]}}]}}], "
     "ingressDeny: [{toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]}]",
     "C:82/TCP C:79/TCP O:82/TCP", "deny drop deny"),
    (f"ingress: [{{fromEndpoints: [{C}]}}], "
     "ingressDeny: [{toPorts: [{ports: [{port: '0', protocol: TCP}]}]}]",
     "C O C:80/UDP C:8/ICMP", "deny deny allow allow"),
    # 4.6 Ports at both ends of the range.
    ("ingress: [{toPorts: [{ports: [{port: '0', endPort: 0, protocol: TCP}]}]}]",
     "C:5/TCP C:5/UDP", "allow drop"),
    ("ingress: [{toPorts: [{ports: [{port: '65535', protocol: SCTP}]}]}]",
     "C:65535/SCTP C:65534/SCTP C:65535/TCP", "allow drop drop"),
    ("ingress: [{toPorts: [{ports: [{port: http, endPort: 8090}]}]}]", "C:8085/TCP C:80/TCP",
     "allow drop"),
    ("ingress: [{icmps: [{fields: [{type: 8}]}, {fields: [{family: IPv6, type: 128}]}]}]",
     "C:8/ICMP C:128/ICMPv6 C:3/ICMP C:8/ICMPv6", "allow allow drop drop"),
    # 4.7, 4.2.6 Holes under other rules; a bare address; one hole in an allow and in a deny.
    ("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}, {cidr: 10.97.0.0/16}]}]",
     ">T8 >T16 >T12", "allow allow drop"),
    ("egress: [{toCIDR: [10.0.0.0/8]}], egressDeny: [{toCIDRSet: "
     "[{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}]", ">T8 >T12 >Wd", "deny allow drop"),
    ("egress: [{toCIDR: [10.1.1.1]}]", ">T8 >T12", "allow drop"),
    ("egress: [{toCIDR: ['2001:DB8:0::/32']}]", ">V6 >Wd", "allow drop"),
    ("egress: [{toCIDRSet: [{cidr: '::/0', except: ['2001:db8::/32']}]}]", ">V6 >Wd", "drop drop"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "packets", "expected"), RULES)
def test_rules(text: str, packets: str, expected: str) -> None:
    assert Engine([web(text)]).say(packets) == expected


KUBERNETES = [
    # 8.1
    (f"policyTypes: [], ingress: [{{from: [{{podSelector: {C}}}]}}]", "C O >C", "allow drop allow"),
    (f"ingress: [{{from: [{{podSelector: {C}}}, {{namespaceSelector: {{}}}}]}}]", "C X Wd",
     "allow allow drop"),
    (f"ingress: [{{from: [{{podSelector: {C}, "
     "namespaceSelector: {matchLabels: {team: x}}}]}]",
     "C O X", "drop drop allow"),
    (f"ingress: [{{from: [{{podSelector: {C}, namespaceSelector: {{}}}}]}}]", "C X R O",
     "allow allow allow drop"),
    (f"egress: [{{to: [{{podSelector: {C}}}]}}]", "C >C >O", "drop allow drop"),
    ("policyTypes: [Ingress, Egress], egress: []", "C >C", "drop drop"),
    ("egress: []", "C >C", "drop allow"),
    ("ingress: [{ports: [{port: 80, endPort: 90}, {port: 53, protocol: UDP}]}]",
     "C:85/TCP C:53/UDP C:53/TCP C:91/TCP", "allow allow drop drop"),
    ("ingress: [{ports: [{protocol: SCTP}]}]", "C:80/SCTP C:80/TCP", "allow drop"),
    ("egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]", ">Wd >T8 >C >N",
     "allow drop drop drop"),
    ("policyTypes: [Egress], ingress: [{from: [{podSelector: " + C + "}]}]", "C O >C",
     "allow drop drop"),
    # 8.2 What Kubernetes' own tests ask for.
    ("ingress: [{from: [{namespaceSelector: "
     "{matchLabels: {kubernetes.io/metadata.name: other}}}]}]", "X C R", "allow drop drop"),
    ("ingress: [{from: [{namespaceSelector: " + term("kubernetes.io/metadata.name", "In", "other")
     + ", podSelector: " + term("app", "In", "client", "web") + "}]}]", "X C W O",
     "allow drop drop drop"),
    ("ingress: [{from: [{namespaceSelector: "
     + term("kubernetes.io/metadata.name", "NotIn", "default") + "}]}]", "X C Wd N",
     "allow drop drop drop"),
    ("ingress: [{from: [{podSelector: " + term("app", "NotIn", "other") + "}]}]", "C O X Wd",
     "allow drop drop drop"),
    ("ingress: [{from: [{namespaceSelector: {matchLabels: {team: x}}}, {podSelector: " + C
     + "}], ports: [{port: http}]}]", "X:8080/TCP C:8080/TCP O:8080/TCP C:80/TCP",
     "allow allow drop drop"),
    ("ingress: [{}, {from: [{podSelector: " + C + "}], ports: [{port: 1}]}]", "O Wd",
     "allow allow"),
    ("ingress: [{ports: [{port: 80, protocol: SCTP}, {port: 81, protocol: UDP}]}]",
     "C:80/SCTP C:81/UDP C:80/TCP C:81/TCP", "allow allow drop drop"),
    ("egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.96.0.0/12]}}, "
     "{ipBlock: {cidr: 10.97.0.0/16}}]}]", ">T8 >T12 >T16", "allow drop allow"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "packets", "expected"), KUBERNETES)
def test_network_policies(text: str, packets: str, expected: str) -> None:
    assert Engine([kubernetes(text)]).say(packets) == expected


@pytest.mark.parametrize("spec", [None, {}, {"podSelector": None}])
def test_a_network_policy_that_says_nothing(spec: object) -> None:
    """8.1: it selects every pod of its namespace, and lets nothing in."""
    engine = Engine([knp(spec)])
    assert engine.readings[0].valid
    assert engine.say("C H Wd >C") == "drop allow drop allow"


def test_a_direction_that_is_not_named_is_told() -> None:
    """4.12.10: its rules are enforced, as in Cilium, and it is said that Kubernetes would not."""
    source = kubernetes(f"policyTypes: [Egress], ingress: [{{from: [{{podSelector: {C}}}]}}]")
    reading = read(source, Settings())
    assert [w.path for w in reading.warnings] == ["spec.ingress"]
    assert "policyTypes does not name Ingress" in reading.warnings[0].reason


PODS = Selector((in_namespace("default"), Requirement("app", Operator.IN, ("client",), "k8s")))
SERVICES = {
    ("default", "s"): PolicyService(Labels.k8s({"tier": "x"}), pods=PODS),
    ("other", "t"): PolicyService(
        Labels.k8s({"tier": "x"}), addresses=(parse_prefix("192.0.2.3/32"),)
    ),
}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("selector: {matchLabels: {tier: x}}", "allow allow drop"),
        ("namespace: default, selector: {matchLabels: {tier: x}}", "allow drop drop"),
        ("selector: {}", "allow allow drop"),
        ("namespace: other, selector: " + term("tier", "Exists"), "drop allow drop"),
        ("selector: {matchLabels: {tier: y}}", "drop drop drop"),
    ],
)
def test_services_by_their_labels(chosen: str, expected: str) -> None:
    """4.9"""
    text = f"egress: [{{toServices: [{{k8sServiceSelector: {{{chosen}}}}}]}}]"
    assert Engine([web(text)], services=SERVICES).say(">C >P3 >O") == expected


def test_groups_by_their_labels_and_in_denies() -> None:
    """3.3"""
    groups = {"g": ["10.0.0.0/8"]}
    chosen = "{cidrGroupSelector: {matchLabels: {'io.cilium.policy.cidrgroupname/g': ''}}}"
    assert Engine([web(f"egress: [{{toCIDRSet: [{chosen}]}}]")], groups=groups).say(">T8 >P3") == (
        "allow drop"
    )
    denied = "egressDeny: [{toCIDRSet: [{cidrGroupRef: g}]}]"
    assert Engine([web(denied)], groups=groups).say(">T8 >P3") == "deny drop"


def test_nodes_by_their_labels() -> None:
    """1.4: no namespace is implied, and no pod is a node."""
    assert Engine([web("egress: [{toNodes: [{}]}]")], NODES).say(">N >C >H") == "allow drop drop"


@pytest.mark.parametrize("range_", ["port: '0', endPort: 100", "port: '0'"])
def test_rules_above_all_ports_are_refused(range_: str) -> None:
    """3.4: 0 is all ports, also where a range starts there."""
    ports = f"{{ports: [{{{range_}, protocol: TCP}}], rules: {{http: [{{}}]}}}}"
    (reading,) = Engine([web(f"ingress: [{{toPorts: [{ports}]}}]")]).readings
    assert "port 0" in reading.errors[0].reason


AUDITED = [
    ((), "C >C", "allow allow", Mode.DEFAULT),
    (
        (f"ingress: [{{fromEndpoints: [{C}]}}]",),
        "C O H >C",
        "allow audit allow allow",
        Mode.DEFAULT,
    ),
    (("ingressDeny: [{fromEntities: [all]}]",), "C H", "audit audit", Mode.DEFAULT),
    (("ingress: [{fromCIDR: [x]}]",), "C >C", "audit audit", Mode.DEFAULT),
    ((), "C H >C", "audit allow audit", Mode.ALWAYS),
    ((f"ingress: [{{fromEndpoints: [{C}]}}]",), "C O >C", "allow audit audit", Mode.ALWAYS),
    (("ingressDeny: [{fromEntities: [all]}]",), "C", "allow", Mode.NEVER),
]


@pytest.mark.parametrize(("texts", "packets", "expected", "mode"), AUDITED)
def test_audit_of_all(texts: tuple[str, ...], packets: str, expected: str, mode: Mode) -> None:
    """4.4 ``policy-audit-mode``: nothing is dropped, and what would be is told."""
    engine = Engine([web(text) for text in texts], AUDIT, Options(mode, audit=True))
    assert engine.say(packets) == expected


def test_default_deny_that_cannot_be_switched_off() -> None:
    """4.3 ``enable-non-default-deny-policies: false``: the field is not read."""
    text = "ingress: [{fromEntities: [none]}], enableDefaultDeny: {ingress: false}"
    for settings, expected in ((Settings(), "allow"), (Settings(non_default_deny=False), "drop")):
        assert Engine([web(text)], settings).say("C") == expected


def test_labels_of_rules() -> None:
    """3.2, 8.1: those that were written, and where the rule comes from."""
    own_labels = [{"key": "team", "value": "x", "source": "k8s"}, {"key": "bare"}]
    spec = {"endpointSelector": {}, "ingress": [{}], "labels": own_labels}
    (found,) = read(Source(Kind.CILIUM, "shop", "p", spec, uid="u"), Settings()).rules
    own = "k8s:io.cilium.k8s.policy"
    derived = [f"{own}.name=p", f"{own}.namespace=shop", f"{own}.uid=u"]
    kind = f"{own}.derived-from=CiliumNetworkPolicy"
    assert list(found.labels) == ["k8s:team=x", "unspec:bare", kind, *derived]
    (other,) = read(Source(Kind.NETWORK_POLICY, "shop", "p", {"podSelector": {}}), Settings()).rules
    assert other.labels[0] == f"{own}.derived-from=NetworkPolicy"


def test_labels_of_rules_do_not_lie() -> None:
    """Which object a rule comes from is not for the object to say: it is left out, with a word."""
    key = "io.cilium.k8s.policy.name"
    labels = [{"key": key, "value": "other", "source": "k8s"}, {"key": key, "value": "mine"}]
    reading = read(cnp({"endpointSelector": {}, "ingress": [{}], "labels": labels}), Settings())
    named = [text for text in reading.rules[0].labels if f"{key}=" in text]
    assert named == [f"unspec:{key}=mine", f"k8s:{key}=p"]
    assert "spec.labels[0].key" in [w.path for w in reading.warnings]


def test_objects_of_one_name() -> None:
    """Kinds and namespaces have names of their own: one takes nothing from the other."""
    world = {"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]}
    pods = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}
    nodes = {"endpointSelector": {}, "ingress": [{"fromEntities": ["remote-node"]}]}
    same = [cnp(world, "p"), knp(pods, "p"), ccnp(nodes, "p")]
    assert len({key_of(source) for source in same}) == 3
    assert Engine(same).say("Wd C N X") == "allow allow allow drop"


@pytest.mark.parametrize("role", ["ingress", "unmanaged", "health", "init"])
def test_roles_of_endpoints(role: str) -> None:
    """2.3: each is that one label, of the cluster, and neither a pod nor the world."""
    numbers = {"ingress": 8, "unmanaged": 3, "health": 4, "init": 5}
    for entity, expected in ((role, "allow"), ("cluster", "allow"), ("all", "allow"),
                             ("world", "drop"), ("host", "drop"), ("none", "drop")):  # fmt: skip
        engine = Engine([web(f"ingress: [{{fromEntities: [{entity}]}}]")])
        engine.add(role, numbers[role], Labels.of([Label(role, "", "reserved")]))
        assert engine.say(role) == expected, entity


def test_the_worlds_of_two_families() -> None:
    """2.3: identities 9 and 10, where a cluster has both."""
    engine = Engine([web("egress: [{toEntities: [world]}]")])
    for name, number in (("world-ipv4", 9), ("world-ipv6", 10)):
        engine.add(name, number, Labels.of([Label(name, "", "reserved")]))
    assert engine.say(">world-ipv4 >world-ipv6 >Wd >C") == "allow allow allow drop"
    engine = Engine([web("egress: [{toEntities: [world-ipv6]}]")])
    for name, number in (("world-ipv4", 9), ("world-ipv6", 10)):
        engine.add(name, number, Labels.of([Label(name, "", "reserved")]))
    assert engine.say(">world-ipv4 >world-ipv6") == "drop allow"
