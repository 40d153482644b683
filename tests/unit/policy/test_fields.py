"""Every field of the reference's schema (§3): what is taken there, and what is refused with its
path. A field of this list that the reader does not know would show as unknown."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from policy.objects.settings import Settings
from tests.support.policy_fields import LABEL, TAKEN, TCP80, item
from tests.support.policy_world import Reading, ccnp, cnp

NODES = Settings(node_selectors=True)
WEB = {"matchLabels": {"app": "web"}}
MANY_TYPES = "[" + ", ".join(f"{{type: {n}}}" for n in range(1, 42)) + "]"
LONG = "a" * 256


def reading(text: str, clusterwide: bool = False, settings: Settings = NODES) -> Reading:
    spec: dict[str, Any] = yaml.safe_load("{" + text + "}")
    if "nodeSelector" not in spec:
        spec = {"endpointSelector": WEB} | spec
    return ccnp(spec, settings) if clusterwide else cnp(spec, settings)


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_taken(text: str) -> None:
    """No error, and no field that is not known."""
    found = reading(text)
    assert (found.errors, found.unknown) == ((), ())


# What is refused, and the path.
PORTS = "spec.egress[0].toPorts[0]"
RULES = f"{PORTS}.rules"
REFUSED: Mapping[str, tuple[str, str]] = {
    "no map": ("ingress: [null]", "spec.ingress[0]"),
    "no list": ("ingress: {}", "spec.ingress"),
    "null among peers": ("ingress: [{fromEndpoints: [null]}]", "spec.ingress[0].fromEndpoints[0]"),
    "null among ports": ("ingress: [{toPorts: [null]}]", "spec.ingress[0].toPorts[0]"),
    "description": ("description: 5", "spec.description"),
    "label": ("labels: [{value: b}]", "spec.labels[0]"),
    "label's value": ("labels: [{key: a, value: 5}]", "spec.labels[0].value"),
    "log": ("log: {value: 5}", "spec.log.value"),
    "no flags": ("enableDefaultDeny: false", "spec.enableDefaultDeny"),
    "flag": ("enableDefaultDeny: {egress: 'no'}", "spec.enableDefaultDeny.egress"),
    "nodes in egress": ("egress: [{toNodes: [{matchLabels: 5}]}]",
                        "spec.egress[0].toNodes[0].matchLabels"),
    "values of In": (
        "ingress: [{fromEndpoints: [{matchExpressions: "
        "[{key: a, operator: In, values: ['b c']}]}]}]",
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0].values[0]",
    ),
    "values of Exists": (
        "ingress: [{fromEndpoints: [{matchExpressions: "
        "[{key: a, operator: Exists, values: [b]}]}]}]",
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0]",
    ),
    "key of an expression": (
        "ingress: [{fromEndpoints: [{matchExpressions: [{operator: Exists}]}]}]",
        "spec.ingress[0].fromEndpoints[0].matchExpressions[0]",
    ),
    "long key": (f"ingress: [{{fromEndpoints: [{{matchLabels: {{{'a' * 64}: b}}}}]}}]",
                 f"spec.ingress[0].fromEndpoints[0].matchLabels.{'a' * 64}"),
    "empty key": ("ingress: [{fromEndpoints: [{matchLabels: {'': b}}]}]",
                  "spec.ingress[0].fromEndpoints[0].matchLabels."),
    "entity's case": ("egress: [{toEntities: [All]}]", "spec.egress[0].toEntities[0]"),
    "CIDR's zero": ("egress: [{toCIDR: [10.0.0.0/08]}]", "spec.egress[0].toCIDR[0]"),
    "CIDR's zone": ("egress: [{toCIDR: ['fe80::1%eth0']}]", "spec.egress[0].toCIDR[0]"),
    "no CIDR": ("egressDeny: [{toCIDR: ['']}]", "spec.egressDeny[0].toCIDR[0]"),
    "except without length": ("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.1]}]}]",
                              "spec.egress[0].toCIDRSet[0].except[0]"),
    "two sources": (
        f"egress: [{{toCIDRSet: [{{cidrGroupRef: g, cidrGroupSelector: {LABEL}}}]}}]",
        "spec.egress[0].toCIDRSet[0]",
    ),
    "nameless group": ("egress: [{toCIDRSet: [{cidrGroupRef: ''}]}]",
                       "spec.egress[0].toCIDRSet[0].cidrGroupRef"),
    "two peers in a deny": ("egressDeny: [{toCIDR: [10.0.0.0/8], toServices: [{k8sService: "
                            "{serviceName: a}}]}]", "spec.egressDeny[0]"),
    "CIDR and CIDRSet": ("egress: [{toCIDR: [10.0.0.0/8], toCIDRSet: [{cidr: 11.0.0.0/8}]}]",
                         "spec.egress[0]"),
    "service without a name": ("egress: [{toServices: [{k8sService: {namespace: a}}]}]",
                               "spec.egress[0].toServices[0].k8sService"),
    "service both ways": ("egress: [{toServices: [{k8sService: {serviceName: a}, "
                          "k8sServiceSelector: {selector: {}}}]}]", "spec.egress[0].toServices[0]"),
    "services without a selector": ("egress: [{toServices: [{k8sServiceSelector: {}}]}]",
                                    "spec.egress[0].toServices[0].k8sServiceSelector"),
    "name and pattern": ("egress: [{toFQDNs: [{matchName: a, matchPattern: b}]}]",
                         "spec.egress[0].toFQDNs[0]"),
    "long name": (f"egress: [{{toFQDNs: [{{matchName: {LONG}}}]}}]",
                  "spec.egress[0].toFQDNs[0].matchName"),
    "long pattern": (f"egress: [{{toFQDNs: [{{matchPattern: {LONG}}}]}}]",
                     "spec.egress[0].toFQDNs[0].matchPattern"),
    "port below zero": ("egress: [{toPorts: [{ports: [{port: '-1'}]}]}]",
                        f"{PORTS}.ports[0].port"),
    "endPort's kind": ("egress: [{toPorts: [{ports: [{port: '1', endPort: '2'}]}]}]",
                       f"{PORTS}.ports[0].endPort"),
    "endPort below zero": ("egress: [{toPorts: [{ports: [{port: '1', endPort: -1}]}]}]",
                           f"{PORTS}.ports[0].endPort"),
    "types in a deny": (f"egressDeny: [{{icmps: [{{fields: {MANY_TYPES}}}]}}]",
                        "spec.egressDeny[0].icmps[0].fields"),
    "icmps and toPorts in a deny": (
        f"egressDeny: [{{icmps: [{{fields: [{{type: 8}}]}}], toPorts: [{{{TCP80}}}]}}]",
        "spec.egressDeny[0]",
    ),
    "type": ("egress: [{icmps: [{fields: [{family: IPv4}]}]}]",
             "spec.egress[0].icmps[0].fields[0]"),
    "type's case": ("egress: [{icmps: [{fields: [{type: echorequest}]}]}]",
                    "spec.egress[0].icmps[0].fields[0].type"),
    "family": ("egress: [{icmps: [{fields: [{family: IPv5, type: 8}]}]}]",
               "spec.egress[0].icmps[0].fields[0].family"),
    "authentication without a mode": ("egress: [{authentication: {}}]",
                                      "spec.egress[0].authentication"),
    "authentication": ("ingress: [{authentication: {mode: spire}}]",
                       "spec.ingress[0].authentication.mode"),
    "http on ANY": ("egress: [{toPorts: [{ports: [{port: '80', protocol: ANY}], "
                    "rules: {http: [{}]}}]}]", RULES),
    "headers": (item("rules: {http: [{headers: [5]}]}"), f"{RULES}.http[0].headers[0]"),
    "headerMatches": (item("rules: {http: [{headerMatches: [{value: x}]}]}"),
                      f"{RULES}.http[0].headerMatches[0]"),
    "mismatch": (item("rules: {http: [{headerMatches: [{name: x, mismatch: DROP}]}]}"),
                 f"{RULES}.http[0].headerMatches[0].mismatch"),
    "dns": (item("rules: {dns: [{}]}"), f"{RULES}.dns[0]"),
    "dns on port 0": (
        "egress: [{toPorts: [{ports: [{port: '0', protocol: UDP}], "
        "rules: {dns: [{matchName: a}]}}]}]", RULES,
    ),
    "kafka's role": (item("rules: {kafka: [{role: both}]}"), f"{RULES}.kafka[0].role"),
    "kafka's two": (item("rules: {kafka: [{role: produce, apiKey: x}]}"), f"{RULES}.kafka[0]"),
    "kafka's topic": (item(f"rules: {{kafka: [{{topic: {LONG}}}]}}"), f"{RULES}.kafka[0].topic"),
    "l7 without l7proto": (item("rules: {l7: [{a: b}]}"), RULES),
    "l7's values": (item("rules: {l7proto: p, l7: [{a: 5}]}"), f"{RULES}.l7[0].a"),
    "http and l7proto": (item("rules: {http: [{}], l7proto: p}"), RULES),
    "empty server name": (item("serverNames: ['']"), f"{PORTS}.serverNames"),
    "TLS without a secret": (item("terminatingTLS: {}"), f"{PORTS}.terminatingTLS"),
    "nameless secret": (item("originatingTLS: {secret: {}}"), f"{PORTS}.originatingTLS.secret"),
    "listener's priority": (
        item("listener: {envoyConfig: {name: e}, name: l, priority: 101}"),
        f"{PORTS}.listener.priority",
    ),
    "listener's kind": (item("listener: {envoyConfig: {kind: X, name: e}, name: l}"),
                        f"{PORTS}.listener.envoyConfig.kind"),
    "listener without a configuration": (item("listener: {name: l}"), f"{PORTS}.listener"),
    "nameless listener": (item("listener: {envoyConfig: {name: e}}"), f"{PORTS}.listener"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "path"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str, path: str) -> None:
    """With that path and none beside it, and the pods it selects are closed."""
    found = reading(text)
    assert {error.path for error in found.errors} == {path}, [str(e) for e in found.errors]
    assert [r.closed for r in found.rules] == [True]


UNKNOWN = {
    "rules in a deny": (f"egressDeny: [{{toPorts: [{{{TCP80}, rules: {{http: [{{}}]}}}}]}}]",
                        "spec.egressDeny[0].toPorts[0].rules"),
    "authentication in a deny": ("ingressDeny: [{authentication: {mode: required}}]",
                                 "spec.ingressDeny[0].authentication"),
    "names in a deny": ("egressDeny: [{toFQDNs: [{matchName: a}]}]", "spec.egressDeny[0].toFQDNs"),
    "services of ingress": ("ingress: [{toServices: []}]", "spec.ingress[0].toServices"),
    "names of ingress": ("ingress: [{fromFQDNs: [{matchName: a}]}]", "spec.ingress[0].fromFQDNs"),
    "peers of egress": ("ingress: [{toEndpoints: [{}]}]", "spec.ingress[0].toEndpoints"),
    "case of a direction": ("Ingress: [{}]", "spec.Ingress"),
    "case of a flag": ("enableDefaultDeny: {Ingress: false}", "spec.enableDefaultDeny.Ingress"),
    "in a selector": ("ingress: [{fromEndpoints: [{app: client}]}]",
                      "spec.ingress[0].fromEndpoints[0].app"),
    "other clouds": ("egress: [{toGroups: [{gcp: {}}]}]", "spec.egress[0].toGroups[0].gcp"),
    "kinds of rules": (item("rules: {grpc: []}"), f"{RULES}.grpc"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "path"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown(text: str, path: str) -> None:
    """§3.4: an API server drops it, so it is no error; it is told."""
    found = reading(text)
    assert found.errors == ()
    assert [u.path for u in found.unknown] == [path]


@pytest.mark.parametrize(
    ("spec", "clusterwide", "path"),
    [
        ({"ingress": [{}]}, False, "spec"),
        ({"ingress": [{}]}, True, "spec"),
        ({}, True, "spec"),
        ({"endpointSelector": None, "ingress": [{}]}, False, "spec"),
        ({"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]}, True, "spec"),
        ({"nodeSelector": {}, "ingress": [{}]}, False, "spec.nodeSelector"),
    ],
)
def test_one_subject(spec: dict[str, Any], clusterwide: bool, path: str) -> None:
    """§3.2: exactly one of the two selectors, and nodes in clusterwide policies only."""
    found = (ccnp if clusterwide else cnp)(spec)
    assert [error.path for error in found.errors] == [path]
    assert [r.closed for r in found.rules] == [True]


def test_rules_above_ports_need_their_proxy() -> None:
    """§3.4: ``enable-l7-proxy: false`` refuses them; what says nothing above ports stays."""
    off = Settings(l7_proxy=False)
    found = reading(item("rules: {http: [{}]}"), settings=off)
    assert [(e.path, "enable-l7-proxy" in e.reason) for e in found.errors] == [(RULES, True)]
    assert reading(item("rules: {http: []}"), settings=off).valid
