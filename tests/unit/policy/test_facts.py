"""What a computation follows from, as JSON and back."""

import json

from model.address import parse_prefix
from model.labels import Label, Labels
from policy.cidr_modes import CidrMode
from policy.facts import EndpointFact, Facts, from_json, parse_labels, to_json
from policy.known import CidrGroup, Known, Mode, Options, PolicyService, Subject
from policy.objects.read import Kind, Source
from policy.objects.settings import Settings
from policy.rules import Operator, Requirement, Selector
from policy.selectors import cidr_labels

WEB = Labels.of([Label("app", "web"), Label("url", "a=b:c"), Label("host", "", "reserved")])
SPEC = {"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]}


def test_round_trip() -> None:
    """Nothing is lost on the way, in JSON text too; the rules are those of the sources."""
    selector = Selector((Requirement("app", Operator.IN, ("web", "db"), "k8s"),))
    known = Known(
        {"g": CidrGroup((parse_prefix("192.0.2.0/24"),), WEB)},
        {
            ("n", "pods"): PolicyService(WEB, selector),
            ("n", "bare"): PolicyService(addresses=(parse_prefix("192.0.2.1/32"),)),
        },
        {("http", 6): {80, 8080}},
    )
    facts = Facts(
        "n1",
        Options(Mode.ALWAYS, allow_localhost=False, cidr_modes=frozenset({CidrMode.NODES})),
        Settings(cluster="alpha", invalid_open=True),
        (Source(Kind.CILIUM, "n", "p", SPEC, None, {"a": "b"}, "uid"),),
        known,
        {300: WEB, 16777217: cidr_labels(parse_prefix("2001:db8::/32"))},
        {
            7: EndpointFact(
                "n", "web-0", 300, Subject(WEB, (("http", 6, 80),)), ("10.1.0.7",), "full"
            )
        },
        pod_cidrs=(parse_prefix("10.1.0.0/24"),),
    )
    back = from_json(json.loads(json.dumps(to_json(facts))))
    assert back == facts
    assert [str(rule.origin) for rule in back.rules()] == ["CiliumNetworkPolicy n/p"]


def test_labels() -> None:
    """Values may hold any sign, keys of prefixes colons none."""
    for labels in (WEB, cidr_labels(parse_prefix("0.0.0.0/0")), Labels()):
        assert parse_labels(labels.strings()) == labels
