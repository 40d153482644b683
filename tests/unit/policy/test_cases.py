"""The tricky cases of the reference, 1 to 35, each through reader, computation and map lookup.

Where we chose a safer reading both stand here: ``LITERAL`` and ``OPEN`` are the settings that have
Cilium's own.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from model.labels import Label, Labels
from policy.known import Mode, Options
from policy.objects.read import Source
from policy.objects.settings import Settings
from tests.support.policy_engine import Engine, ccnp, cnp, knp
from tests.support.policy_world import USUAL

LITERAL = Settings(upstream_readings=True)
OPEN = Settings(invalid_open=True)
NEVER = Options(mode=Mode.NEVER)
CLIENT = "{matchLabels: {app: client}}"
P80 = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]"
KEY = "io.kubernetes.pod.namespace"


def web(text: str, **more: Any) -> Source:
    """A CiliumNetworkPolicy that selects the web pod."""
    spec = yaml.safe_load("{" + text + "}")
    return cnp({"endpointSelector": {"matchLabels": {"app": "web"}}} | spec, **more)


def all_pods(text: str) -> Source:
    """A clusterwide one that selects every endpoint."""
    return ccnp({"endpointSelector": {}} | yaml.safe_load("{" + text + "}"))


def kubernetes(text: str) -> Source:
    """A NetworkPolicy that selects every pod."""
    return knp({"podSelector": {}} | yaml.safe_load("{" + text + "}"))


@dataclass(frozen=True)
class Case:
    """``expected`` has a word for each of ``packets``."""

    number: str
    objects: tuple[Source, ...]
    packets: str
    expected: str
    settings: Settings = USUAL
    options: Options = field(default_factory=Options)
    subject: str = "W"


def case(number: str, what: Source, packets: str, expected: str, **more: Any) -> Case:
    return Case(number, (what,), packets, expected, **more)


HTTP = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET%s}]}}]"
NOT_OTHER = (
    f"ingress: [{{fromEndpoints: [{{matchExpressions: "
    f"[{{key: {KEY}, operator: NotIn, values: [other]}}]}}]}}]"
)
LOCAL_CLIENT = "{matchLabels: {app: client, io.cilium.k8s.policy.cluster: default}}"
DENY_CLIENT = f"ingressDeny: [{{fromEndpoints: [{CLIENT}]}}]"
TO_DNS = f"{{matchLabels: {{{KEY}: kube-system, k8s-app: kube-dns}}}}"
TO_MISSING = "toServices: [{k8sService: {serviceName: missing, namespace: default}}]"
MISSING = f"egress: [{{{TO_MISSING}, {P80}}}]"
REQUIRES = f"ingress: [{{fromRequires: [{CLIENT}], {P80}}}]"

CASES = [
    case("1", web("ingress: [{}]"), "C H >Wd", "drop allow allow"),
    case("2", kubernetes("ingress: [{}]"), "C Wd", "allow allow"),
    case("3", web("ingress: []"), "Wd", "allow"),
    case("3 Kubernetes", kubernetes("ingress: []"), "Wd", "drop"),
    case(
        "4",
        web("ingress: [{fromEndpoints: [{}]}]"),
        "C R X N Wd",
        "allow allow drop drop drop",
    ),
    case(
        "4 clusterwide",
        ccnp(
            yaml.safe_load(
                "{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{}]}]}"
            )
        ),
        "C R X N Wd",
        "allow allow allow drop drop",
    ),
    case("5a", web(f"ingress: [{{fromEndpoints: [], {P80}}}]"), "C Wd", "drop drop"),
    case("5b", web(f"ingress: [{{{P80}}}]"), "C Wd", "allow allow"),
    case("6a", web(f"ingress: [{{fromEndpoints: [{CLIENT}], toPorts: []}}]"), "C:443/TCP", "allow"),
    case(
        "6b", web(f"ingress: [{{fromEndpoints: [{CLIENT}], toPorts: [{{}}]}}]"), "C:443/TCP", "drop"
    ),
    case("7", web(f"ingress: [{{{P80}, rules: {{http: [{{method: GET}}]}}}}]"), "Wd", "allow"),
    case(
        "8", web(f"ingress: [{{{HTTP % ', headers: {X-My-Header: true}'}}}]"), "Wd:22/TCP", "deny"
    ),
    case(
        "8 open",
        web(f"ingress: [{{{HTTP % ', headers: {X-My-Header: true}'}}}]"),
        "Wd:22/TCP",
        "allow",
        settings=OPEN,
    ),
    case("9", web(DENY_CLIENT), "C O H", "deny drop allow"),
    case(
        "10",
        web(DENY_CLIENT + ", enableDefaultDeny: {ingress: false}"),
        "C R O Wd",
        "deny deny allow allow",
    ),
    case("11", web("ingressDeny: [{fromEntities: [all]}]"), "Wd", "allow", options=NEVER),
    case("12", web(NOT_OTHER), "C D X Wd N", "allow allow drop drop drop"),
    case(
        "12 literal", web(NOT_OTHER), "C D X Wd N", "allow allow drop allow allow", settings=LITERAL
    ),
    case(
        "13",
        web(
            "ingress: [{fromEndpoints: [{matchLabels: "
            "{'k8s:io.cilium.k8s.namespace.labels.team': x}}]}]"
        ),
        "X C",
        "allow drop",
    ),
    case("14", web(f"ingress: [{{fromEndpoints: [{LOCAL_CLIENT}]}}]"), "C R", "allow drop"),
    case("14 without", web(f"ingress: [{{fromEndpoints: [{CLIENT}]}}]"), "C R", "allow allow"),
    case(
        "15",
        web("ingress: [{fromEntities: [cluster]}]"),
        "C R N K KX Wd",
        "allow drop allow allow allow drop",
    ),
    case(
        "16",
        all_pods("ingress: [{fromEndpoints: [{}]}]"),
        "N:4240/TCP",
        "drop",
        subject="health",
    ),
    case(
        "17",
        web(
            "egressDeny: [{toEndpoints: [{matchLabels: "
            "{namespace: kube-system, k8s-app: kube-dns}}]}]"
        ),
        ">D:53/UDP >C",
        "drop drop",
    ),
    case(
        "17 right key",
        web(f"egressDeny: [{{toEndpoints: [{TO_DNS}]}}]"),
        ">D:53/UDP >C",
        "deny drop",
    ),
    case(
        "18",
        web("ingress: [{toPorts: [{ports: [{port: '80'}]}]}]"),
        "Wd:80/TCP Wd:80/UDP Wd:80/SCTP Wd:8/ICMP",
        "allow allow allow drop",
    ),
    case(
        "19",
        web("ingress: [{toPorts: [{ports: [{port: '0', protocol: ANY}]}]}]"),
        "Wd:9/TCP Wd:8/ICMP",
        "allow drop",
    ),
    case(
        "20",
        web("ingress: [{icmps: [{fields: [{type: 0}]}]}]"),
        "Wd:8/ICMP Wd:3/ICMP Wd:128/ICMPv6",
        "allow allow drop",
    ),
    *(
        case(
            f"21{number}",
            web(f"ingress: [{{toPorts: [{{ports: [{{port: {name}, protocol: {protocol}}}]}}]}}]"),
            "Wd:8080/TCP",
            expected,
        )
        for number, name, protocol, expected in (
            ("a", "http", "TCP", "allow"),
            ("b", "http", "UDP", "drop"),
            ("c", "web", "TCP", "drop"),
        )
    ),
    case(
        "22",
        web(
            "ingress: [{toPorts: [{ports: [{port: '8000', endPort: 8100, protocol: TCP}]}]}], "
            "ingressDeny: [{toPorts: [{ports: [{port: '8080', endPort: 8081, protocol: TCP}]}]}]"
        ),
        "Wd:8079/TCP Wd:8080/TCP Wd:8082/TCP H:8080/TCP",
        "allow deny allow deny",
    ),
    case(
        "23",
        web("ingress: [{toPorts: [{ports: [{port: '010', protocol: TCP}]}]}]"),
        "Wd:8/TCP Wd:10/TCP",
        "allow drop",
    ),
    case(
        "23 no number",
        web("ingress: [{toPorts: [{ports: [{port: '080', protocol: TCP}]}]}]"),
        "Wd:22/TCP",
        "deny",
    ),
    case(
        "23 no number, open",
        web("ingress: [{toPorts: [{ports: [{port: '080', protocol: TCP}]}]}]"),
        "Wd:22/TCP",
        "allow",
        settings=OPEN,
    ),
    case("24", kubernetes("ingress: [{ports: [{}]}]"), "Wd:5/TCP Wd:5/UDP", "allow drop"),
    case(
        "25",
        web(
            "egress: [{toCIDR: [0.0.0.0/0]}], "
            "egressDeny: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}]"
        ),
        ">T8 >T12 >T16",
        "deny allow allow",
    ),
    case(
        "26",
        web(
            "egress: [{toFQDNs: [{matchPattern: '*.example.com'}]}], "
            "egressDeny: [{toEntities: [world]}]"
        ),
        ">Wd:443/TCP",
        "deny",
    ),
    case(
        "26 of a CIDR",
        web("egress: [{toCIDR: [198.51.100.9/32]}], egressDeny: [{toEntities: [world]}]"),
        ">Wd:443/TCP",
        "deny",
    ),
    case(
        "27",
        web("egress: [{toCIDR: [0.0.0.0/0]}]"),
        ">C >N >K >KX >Wd",
        "drop drop drop allow allow",
    ),
    Case("28", (kubernetes("ingress: [{}]"), all_pods(DENY_CLIENT)), "C O", "deny allow"),
    case("29", web(MISSING), ">Wd", "drop"),
    case("29 literal", web(MISSING), ">Wd", "allow", settings=LITERAL),
    case("30", web(REQUIRES), "Wd", "drop"),
    case("30 literal", web(REQUIRES), "Wd", "allow", settings=LITERAL),
    case(
        "31",
        web(
            "egress: [{toEntities: [all]}], egressDeny: [{toFQDNs: [{matchName: a.com}], "
            "toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]"
        ),
        ">C:443/TCP >Wd:80/TCP",
        "deny allow",
    ),
    # What is above ports is not enforced yet: what HTTP or DNS rules would judge is denied.
    case(
        "32",
        web(
            f"ingress: [{{fromEndpoints: [{CLIENT}], {HTTP % ', path: /public'}}}, "
            f"{{fromEndpoints: [{CLIENT}]}}]"
        ),
        "C:80/TCP C:81/TCP O:80/TCP",
        "deny allow drop",
    ),
    case(
        "33",
        web(
            f"egress: [{{toEndpoints: [{TO_DNS}], toPorts: [{{ports: [{{port: '53'}}], "
            f"rules: {{dns: [{{matchName: example.com}}]}}}}]}}, {{toEndpoints: [{TO_DNS}]}}]"
        ),
        ">D:53/UDP >D:53/TCP >D:9153/TCP",
        "deny deny allow",
    ),
    case(
        "34",
        web(f"ingress: [{{fromEndpoints: [{CLIENT}], {HTTP % ', path: /public'}}}]"),
        "C O",
        "deny drop",
    ),
    case(
        "35",
        web(f"ingress: [{{{HTTP % ''}}}, {{fromEndpoints: [{CLIENT}], {P80}}}]"),
        "C O C:81/TCP",
        "deny deny drop",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_case(case: Case) -> None:
    """What the reference's table says, or the safer reading that an ADR has instead."""
    engine = Engine(case.objects, case.settings, case.options, subject=case.subject)
    assert engine.say(case.packets) == case.expected


def test_every_case_is_here() -> None:
    """Thirty-five."""
    numbers = {int("".join(c for c in case.number.split()[0] if c.isdigit())) for case in CASES}
    assert numbers == set(range(1, 36))


def test_the_unusable_are_refused() -> None:
    """Cases 8 and 23 say why, with the field; 7 and 31 tell of a field that is not known there."""
    found = {c.number: Engine(c.objects, c.settings).readings[0] for c in CASES}
    assert found["8"].errors[0].path == "spec.ingress[0].toPorts[0].rules.http[0].headers"
    assert found["23 no number"].errors[0].path == "spec.ingress[0].toPorts[0].ports[0].port"
    assert [f.path for f in found["7"].unknown] == ["spec.ingress[0].rules"]
    assert [f.path for f in found["31"].unknown] == ["spec.egressDeny[0].toFQDNs"]


def test_addresses_of_names() -> None:
    """Case 26 again, with the identity an address has that was learnt for a name: still denied."""
    engine = Engine(CASES[[c.number for c in CASES].index("26")].objects)
    labels = Labels.of(
        [
            Label("*.example.com", "", "fqdn"),
            Label("api.example.com", "", "fqdn"),
            Label("world", "", "reserved"),
        ]
    )
    engine.add("F", (1 << 24) + 500, labels)
    assert engine.say(">F:443/TCP") == "deny"
