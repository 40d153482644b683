"""What the reference says of semantics, sentence by sentence, through the compiled map."""

import itertools
from typing import Any

import pytest
import yaml

from model.address import parse_prefix
from policy.known import Mode, Options, PolicyService
from policy.objects.read import AUDIT_ANNOTATION, Source
from policy.objects.selectors import in_namespace
from policy.objects.settings import Settings
from policy.rules import Operator, Requirement, Selector
from tests.support.policy_engine import Engine, ccnp, cnp, knp

ALWAYS, NEVER = Options(mode=Mode.ALWAYS), Options(mode=Mode.NEVER)
PROBES_BY_POLICY = Options(allow_localhost=False)
LOCAL = Settings(default_local_cluster=True)
CLIENT, OTHER = "{matchLabels: {app: client}}", "{matchLabels: {app: other}}"
P80 = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]"
HTTP80 = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]"
FROM_CLIENT = f"ingress: [{{fromEndpoints: [{CLIENT}]}}]"
OFF = "enableDefaultDeny: {ingress: false}"


def web(text: str, **more: Any) -> Source:
    spec = yaml.safe_load("{" + text + "}")
    if "nodeSelector" in spec:
        return ccnp(spec, **more)
    return cnp({"endpointSelector": {"matchLabels": {"app": "web"}}} | spec, **more)


def audited(text: str) -> Source:
    return web(text, annotations={AUDIT_ANNOTATION: "true"})


def kubernetes(text: str) -> Source:
    return knp({"podSelector": {}} | yaml.safe_load("{" + text + "}"))


# Texts of objects, packets, verdicts.
TOGETHER = [
    # 4.2.2 No rule in a direction: open; one: what some rule allows.
    ((FROM_CLIENT,), "C O >C >Wd", "allow drop allow allow"),
    # 4.2.1 All objects are united.
    ((FROM_CLIENT, f"ingress: [{{fromEndpoints: [{OTHER}]}}]"), "C O Wd", "allow allow drop"),
    # 4.2.3 Deny beats allow at every level.
    (
        (
            f"ingressDeny: [{{fromEndpoints: [{CLIENT}]}}]",
            f"ingress: [{{fromEndpoints: [{CLIENT}], {P80}}}]",
        ),
        "C:80/TCP C:81/TCP",
        "deny deny",
    ),
    ((f"ingressDeny: [{{{P80}}}]", FROM_CLIENT), "C:80/TCP C:81/TCP O:80/TCP", "deny allow deny"),
    (
        (f"ingressDeny: [{{{P80}}}]", f"ingress: [{{fromEndpoints: [{CLIENT}], {P80}}}]"),
        "C:80/TCP C:81/TCP",
        "deny drop",
    ),
    ((f"ingressDeny: [{{{P80}}}]", f"ingress: [{{{HTTP80}}}]"), "C:80/TCP", "deny"),
    (
        (
            "ingressDeny: [{fromEntities: [all]}]",
            f"ingress: [{{fromEndpoints: [{CLIENT}], {P80}}}]",
        ),
        "C H",
        "deny deny",
    ),
    # 4.2.4 Peer AND port; lists are OR; labels AND expressions.
    ((f"ingress: [{{fromEndpoints: [{CLIENT}], {P80}}}]",), "C C:81/TCP O", "allow drop drop"),
    (
        (
            f"ingress: [{{fromEndpoints: [{CLIENT}, {OTHER}], toPorts: ["
            "{ports: [{port: '80', protocol: TCP}]}, {ports: [{port: '53', protocol: UDP}]}]}]",
        ),
        "C O:53/UDP O:53/TCP C:80/UDP",
        "allow allow drop drop",
    ),
    (
        (
            "ingress: [{fromEndpoints: [{matchLabels: {app: client}, matchExpressions: "
            "[{key: io.cilium.k8s.policy.cluster, operator: In, values: [c2, c3]}]}]}]",
        ),
        "C R",
        "drop allow",
    ),
    # 4.2.6 An exception is a hole in its rule, not a deny.
    (
        (
            "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}]",
            "egress: [{toCIDR: [10.97.0.0/16]}]",
        ),
        ">T8 >T12 >T16",
        "allow drop allow",
    ),
    # 4.3 Default deny and its switch.
    ((f"ingressDeny: [{{fromEndpoints: [{CLIENT}]}}]",), "C O >C", "deny drop allow"),
    ((f"{FROM_CLIENT}, {OFF}",), "C O Wd", "allow allow allow"),
    ((f"ingressDeny: [{{fromEndpoints: [{CLIENT}]}}], {OFF}",), "C O", "deny allow"),
    (
        (f"{FROM_CLIENT}, {OFF}", f"ingress: [{{fromEndpoints: [{OTHER}]}}]"),
        "C O Wd",
        "allow allow drop",
    ),
    (("enableDefaultDeny: {ingress: true, egress: true}",), "C >C", "allow allow"),
    ((f"{FROM_CLIENT}, enableDefaultDeny: {{egress: true}}",), "C O >C", "allow drop allow"),
    ((f"ingress: [{{{HTTP80}}}], {OFF}",), "C C:81/TCP", "deny allow"),
    # 4.12.5 Names that DNS rules would judge are not let by; what else there is stays open.
    (
        (
            "egress: [{toEndpoints: [{matchLabels: {io.kubernetes.pod.namespace: kube-system}}], "
            "toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a.com}]}}]}], "
            "enableDefaultDeny: {egress: false}",
        ),
        ">D:53/UDP >D:53/TCP >D:9153/TCP >C:53/UDP >Wd",
        "deny deny allow allow allow",
    ),
    # 4.5 The node reaches its pods, and is an ordinary peer for a deny; not on the way out.
    (("ingress: [{}]",), "H H:9/UDP H:8/ICMP N", "allow allow allow drop"),
    (("egress: [{}]",), ">H >N", "drop drop"),
    (("ingressDeny: [{fromEntities: [host]}]",), "H C", "deny drop"),
    ((f"ingressDeny: [{{{P80}}}]",), "H H:81/TCP", "deny allow"),
    # 4.6 Any rule about ports is not about ICMP; an L3 rule is.
    ((FROM_CLIENT,), "C:8/ICMP C:80/SCTP", "allow allow"),
    ((f"ingress: [{{fromEndpoints: [{CLIENT}], {P80}}}]",), "C:8/ICMP", "drop"),
    (
        ("ingressDeny: [{icmps: [{fields: [{type: 0}]}]}]", "ingress: [{fromEntities: [all]}]"),
        "C:8/ICMP C:3/ICMP C:128/ICMPv6 C:80/TCP",
        "deny deny allow allow",
    ),
    (
        ("ingress: [{toPorts: [{ports: [{port: '1', endPort: 65535, protocol: TCP}]}]}]",),
        "C:0/TCP C:1/TCP C:65535/TCP C:1/UDP",
        "drop allow allow drop",
    ),
    (
        ("ingress: [{toPorts: [{ports: [{port: '8080', endPort: 8090, protocol: UDP}]}]}]",),
        "C:8079/UDP C:8080/UDP C:8087/UDP C:8088/UDP C:8090/UDP C:8091/UDP",
        "drop allow allow allow allow drop",
    ),
    # 4.7 CIDRs are about what is outside, and families are apart.
    (
        ("egress: [{toCIDR: [0.0.0.0/0, '::/0']}]",),
        ">C >N >H >Wd >V6",
        "drop drop drop allow allow",
    ),
    (("egress: [{toCIDR: [0.0.0.0/0]}]",), ">Wd >V6", "allow drop"),
    (("egress: [{toCIDR: ['::/0']}]",), ">Wd >V6 >T8", "drop allow drop"),
    (
        ("egress: [{toCIDR: [0.0.0.0/0]}]", "egressDeny: [{toCIDR: ['::/0']}]"),
        ">Wd >V6",
        "allow deny",
    ),
    (("egress: [{toEntities: [world-ipv4]}]",), ">Wd >V6 >KX >C", "allow drop allow drop"),
    (("egress: [{toEntities: [world-ipv6]}]",), ">Wd >V6 >C", "drop allow drop"),
    (("egress: [{toEntities: [world]}]",), ">Wd >V6 >P3 >C >N", "allow allow allow drop drop"),
    (
        ("egress: [{toCIDRSet: [{cidr: 0.0.0.0/0, except: [192.0.2.0/24]}]}]",),
        ">Wd >P3 >P24",
        "allow drop drop",
    ),
    (
        ("egress: [{toCIDR: [192.0.2.0/24]}]", "egressDeny: [{toCIDR: [192.0.2.3/32]}]"),
        ">P3 >P24 >Wd",
        "deny allow drop",
    ),
    # 4.8 A deny comes before what is above ports.
    (
        (
            f"ingress: [{{fromEndpoints: [{CLIENT}], {HTTP80}}}, "
            f"{{fromEndpoints: [{OTHER}], {P80}}}]",
        ),
        "C O C:81/TCP",
        "deny allow drop",
    ),
    # 4.10 Rules for nodes are not for pods, and a pod selector never selects the node.
    (("nodeSelector: {}, ingress: [{fromEntities: [cluster]}]",), "C Wd", "allow allow"),
    # 4.12.11 An ipBlock is no pod selector, whatever the cluster is called.
    (("nodeSelector: {matchLabels: {a: b}}, ingressDeny: [{}]",), "C", "allow"),
]


@pytest.mark.parametrize(("texts", "packets", "expected"), TOGETHER)
def test_together(texts: tuple[str, ...], packets: str, expected: str) -> None:
    """Objects in any order mean the same."""
    for some in itertools.permutations(texts):
        assert Engine([web(text) for text in some]).say(packets) == expected


@pytest.mark.parametrize("settings", [Settings(), LOCAL, Settings(cluster="default")])
def test_address_blocks_are_no_pods(settings: Settings) -> None:
    """4.12.11: a peer of a NetworkPolicy that has an ipBlock alone selects addresses alone."""
    engine = Engine([kubernetes("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]")], settings)
    assert engine.say("T8 C O X R N Wd") == "allow drop drop drop drop drop drop"


MODES = [
    ((), ALWAYS, "W", "C H >C >H", "drop allow drop drop"),
    ((FROM_CLIENT,), ALWAYS, "W", "C O >C", "allow drop drop"),
    ((), PROBES_BY_POLICY, "W", "H C", "allow allow"),
    ((FROM_CLIENT,), PROBES_BY_POLICY, "W", "H C", "drop allow"),
    (("ingress: [{fromEntities: [host]}]",), PROBES_BY_POLICY, "W", "H C", "allow drop"),
    (("ingress: [{}], egress: [{}]",), NEVER, "W", "C >C", "allow allow"),
    (("ingressDeny: [{fromEntities: [all]}]",), NEVER, "W", "C H", "allow allow"),
    ((f"ingress: [{{{HTTP80}}}]",), NEVER, "W", "C", "allow"),
    ((), Options(), "init", "C H >C", "drop allow drop"),
    ((), ALWAYS, "init", "C >C", "drop drop"),
    ((), NEVER, "init", "C >C", "allow allow"),
    ((), ALWAYS, "node", "C >C N", "allow allow allow"),
    (("nodeSelector: {}, ingress: [{fromEntities: [remote-node]}]",), Options(), "node",
     "N K C Wd >C", "allow allow drop drop allow"),
    (("nodeSelector: {matchLabels: {role: gateway}}, ingressDeny: [{fromEntities: [world]}]",),
     Options(), "node", "Wd C", "allow allow"),
    (("nodeSelector: {matchLabels: {zone: a}}, ingressDeny: [{fromEntities: [world]}]",),
     Options(), "node", "Wd C", "deny drop"),
    (("nodeSelector: {}, egress: [{toCIDR: [192.0.2.0/24]}]",), Options(), "node",
     ">P3 >Wd C", "allow drop allow"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "options", "subject", "packets", "expected"), MODES)
def test_modes(
    texts: tuple[str, ...], options: Options, subject: str, packets: str, expected: str
) -> None:
    """4.4, 4.5, 4.10: what is enforced, for whom."""
    objects = [web(text) for text in texts]
    engine = Engine(objects, options=options, subject=subject, node_labels={"zone": "a"})
    assert engine.say(packets) == expected


def test_a_pod_selector_never_selects_the_node() -> None:
    """4.10: neither everything nor ``reserved:host``."""
    for selector in ({}, {"matchLabels": {"reserved:host": ""}}):
        deny = ccnp({"endpointSelector": selector, "ingressDeny": [{"fromEntities": ["all"]}]})
        assert Engine([deny], subject="node").say("C N Wd") == "allow allow allow"


def test_the_clusterwide_empty_selector_selects_health() -> None:
    """4.5: so nodes have to be allowed to it."""
    opened = [{"fromEntities": ["remote-node", "health", "host"]}]
    shut = ccnp({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]}, "a")
    more = ccnp({"endpointSelector": {}, "ingress": opened}, "b")
    assert Engine([shut], subject="health").say("N H C") == "drop allow allow"
    assert Engine([shut, more], subject="health").say("N H health") == "allow allow allow"


PODS = Selector((in_namespace("default"), Requirement("app", Operator.IN, ("client",), "k8s")))
SERVICES = {
    ("default", "pods"): PolicyService(pods=PODS),
    ("other", "addresses"): PolicyService(addresses=(parse_prefix("192.0.2.3/32"),)),
    ("default", "nobody"): PolicyService(),
}


def _to(name: str, namespace: str = "default", more: str = "") -> str:
    at = f", namespace: {namespace}" if namespace else ""
    return f"{{toServices: [{{k8sService: {{serviceName: {name}{at}}}}}]{more}}}"


@pytest.mark.parametrize(
    ("text", "packets", "expected"),
    [
        (f"egress: [{_to('pods')}]", ">C >R >X >O", "allow allow drop drop"),
        (f"egress: [{_to('addresses', 'other')}]", ">P3 >P24 >C", "allow drop drop"),
        (f"egress: [{_to('addresses', '')}]", ">P3 >P24", "allow drop"),
        (f"egress: [{_to('addresses', 'default')}]", ">P3", "drop"),
        (f"egress: [{_to('pods', more=', ' + P80)}]", ">C >C:81/TCP >O", "allow drop drop"),
        (f"egress: [{_to('nobody', more=', ' + P80)}]", ">C >Wd", "drop drop"),
        (f"egress: [{_to('missing')}]", ">C >Wd", "drop drop"),
        (f"egressDeny: [{_to('pods', more=', ' + P80)}], egress: [{{toEntities: [all]}}]",
         ">C >C:81/TCP >Wd", "deny allow allow"),
        (f"egressDeny: [{_to('missing', more=', ' + P80)}], egress: [{{toEntities: [all]}}]",
         ">C >Wd", "allow allow"),
    ],
)  # fmt: skip
def test_services(text: str, packets: str, expected: str) -> None:
    """4.9, and what is not there is nobody; ports are those of the backends."""
    assert Engine([web(text)], services=SERVICES).say(packets) == expected


def test_services_literally() -> None:
    """4.12.2 as Cilium reads it: with ports anybody, without nobody; and until it is there."""
    literal = Settings(upstream_readings=True)
    ported, plain = (f"egress: [{_to('nobody', more=more)}]" for more in (", " + P80, ""))
    assert Engine([web(ported)], literal, services=SERVICES).say(">Wd >C >Wd:81/TCP") == (
        "allow allow drop"
    )
    assert Engine([web(plain)], literal, services=SERVICES).say(">Wd >C") == "drop drop"
    engine = Engine([web(ported)], literal, services=SERVICES)
    engine.table.put_service("default", "nobody", PolicyService(pods=PODS))
    engine.table.compute()
    assert engine.say(">Wd >C") == "drop allow"


@pytest.mark.parametrize(
    ("named", "packets", "expected"),
    [
        ({("web", 6): {8080}}, ">C:8080/TCP >C:8080/UDP >C:80/TCP", "allow drop drop"),
        ({("web", 6): {8080, 9090}}, ">C:8080/TCP >C:9090/TCP", "drop drop"),
        ({("web", 17): {8080}}, ">C:8080/TCP >C:8080/UDP", "drop allow"),
        ({}, ">C:8080/TCP", "drop"),
    ],
)
def test_names_of_ports_on_the_way_out(
    named: dict[tuple[str, int], set[int]], packets: str, expected: str
) -> None:
    """4.6: of all pods; where they do not agree, nobody has it. ANY: as the containers declare."""
    text = "egress: [{toPorts: [{ports: [{port: web}]}]}]"
    assert Engine([web(text)], pod_ports=named).say(packets) == expected


def test_a_name_with_an_end() -> None:
    """4.6: from the number the name has."""
    text = "ingress: [{ports: [{port: http, endPort: 8090}]}]"
    assert Engine([kubernetes(text)]).say("C:8080/TCP C:8090/TCP C:8091/TCP C:80/TCP") == (
        "allow allow drop drop"
    )


def test_groups_of_prefixes() -> None:
    """3.3: by name and by label, with exceptions; a group that is not there is nobody."""
    groups = {"g": ["10.0.0.0/8", "192.0.2.3"]}
    by_name = "egress: [{toCIDRSet: [{cidrGroupRef: g, except: [10.96.0.0/12]}]}]"
    assert Engine([web(by_name)], groups=groups).say(">T8 >T12 >T16 >P3 >P24") == (
        "allow drop drop allow drop"
    )
    missing = "egress: [{toCIDRSet: [{cidrGroupRef: none}]}]"
    assert Engine([web(missing)], groups=groups).say(">T8 >C") == "drop drop"


def test_one_bad_spec_closes() -> None:
    """3.1: one bad rule refuses the object; what it selects is shut, the rest is not touched."""
    good = {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"fromEndpoints": [{}]}],
    }
    bad = {"endpointSelector": {"matchLabels": {"app": "other"}}, "ingress": [{"fromCIDR": ["x"]}]}
    source = cnp(None, specs=[good, bad])
    for subject, expected in (
        ("W", "deny deny deny"),
        ("O", "deny deny deny"),
        ("C", "allow allow allow"),
    ):
        assert Engine([source], subject=subject).say("C H >C") == expected


def test_settings_of_clusters() -> None:
    """4.12.7: no cluster is implied, or the local one, for every kind; nodes stay nodes."""
    for settings, expected in ((Settings(), "allow allow"), (LOCAL, "allow drop")):
        assert Engine([web(FROM_CLIENT)], settings).say("C R") == expected
        by_pod = f"ingress: [{{from: [{{podSelector: {CLIENT}}}]}}]"
        assert Engine([kubernetes(by_pod)], settings).say("C R") == expected
    mine = "ingress: [{fromEntities: [remote-node]}]"
    assert Engine([web(mine)], LOCAL).say("N C") == "allow drop"


AUDITS = [
    # What it alone would forbid passes and is told.
    ((), (FROM_CLIENT,), "C O Wd >C", "allow audit audit allow"),
    ((), ("ingressDeny: [{fromEntities: [all]}]",), "C H", "audit audit"),
    # Others enforce.
    ((FROM_CLIENT,), ("ingressDeny: [{fromEntities: [all]}]",), "C O H", "audit drop audit"),
    ((f"ingressDeny: [{{fromEndpoints: [{CLIENT}]}}]",),
     ("ingress: [{fromEntities: [all]}]",), "C O", "deny allow"),
    ((f"ingress: [{{fromEndpoints: [{CLIENT}], {P80}}}]",),
     (f"ingressDeny: [{{fromEndpoints: [{CLIENT}], {P80}}}]",), "C C:81/TCP O", "audit drop drop"),
    # An allow of it is an allow.
    ((f"ingress: [{{fromEndpoints: [{OTHER}]}}]",), (FROM_CLIENT,), "C O Wd", "allow allow drop"),
    # What is not enforced yet would deny.
    ((), (f"ingress: [{{{HTTP80}}}]",), "C C:81/TCP", "audit audit"),
    # Refused, it would shut.
    ((), ("ingress: [{fromCIDR: [x]}]",), "C H >C", "audit audit audit"),
]  # fmt: skip


@pytest.mark.parametrize(("enforced", "tried", "packets", "expected"), AUDITS)
def test_audit(
    enforced: tuple[str, ...], tried: tuple[str, ...], packets: str, expected: str
) -> None:
    """One policy in audit while others enforce."""
    objects = [*(web(text) for text in enforced), *(audited(text) for text in tried)]
    assert Engine(objects).say(packets) == expected
