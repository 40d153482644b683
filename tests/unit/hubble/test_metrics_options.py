"""What `hubble-metrics` and the file of metrics may say."""

import pytest

from hubble.metrics.contexts import Context
from hubble.metrics.options import LABELS, Metric, parse_file, parse_text
from tests.support.hubble import flow

PEOPLE_WRITE = (
    "dns:query;ignoreAAAA drop tcp "
    "httpV2:exemplars=true;labelsContext=source_namespace,source_workload,"
    "destination_namespace,destination_workload,traffic_direction;"
    "sourceContext=workload-name|reserved-identity;future=1"
)
SOME = flow(
    source={
        "identity": 70000,
        "namespace": "shop",
        "pod_name": "web-0",
        "labels": ["k8s:k8s-app=web", "k8s:zone=a"],
        "workloads": [{"name": "web", "kind": "StatefulSet"}],
    },
    destination={"identity": 2, "labels": ["reserved:kube-apiserver", "reserved:remote-node"]},
    source_names=["web.example"],
    IP={"source": "10.1.0.1", "destination": "203.0.113.9", "ipVersion": "IPv4"},
    traffic_direction="EGRESS",
)


def test_the_text_as_people_write_it() -> None:
    """Lists by bar or comma, switches, names of options in any case, what nobody knows."""
    dns, drop, tcp, http = parse_text(PEOPLE_WRITE)
    assert (dns.has("query"), dns.has("ignoreAAAA"), drop.has("query")) == (True, True, False)
    assert (drop.options, tcp.options) == ({}, {})
    assert http.has("exemplars")
    assert http.options["sourcecontext"] == ("workload-name", "reserved-identity")
    assert Context(http).labels == (
        "source_namespace",
        "source_workload",
        "destination_namespace",
        "destination_workload",
        "traffic_direction",
        "source",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dns weather", 'no metric "weather": use dns, drop'),
        ("drop drop", "twice"),
        ("http httpV2", "same names"),
        ("drop:sourceContext=pod-short", 'no "pod-short": use identity'),
        ("drop:labelsContext=source_pod|planet", 'no "planet": use source_ip'),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_text(text)


@pytest.mark.parametrize(
    ("identifier", "source", "destination"),
    [
        ("identity", "k8s:k8s-app=web,k8s:zone=a", "reserved:kube-apiserver,reserved:remote-node"),
        ("namespace", "shop", ""),
        ("pod", "shop/web-0", ""),
        ("pod-name", "web-0", ""),
        ("dns", "web.example", ""),
        ("ip", "10.1.0.1", "203.0.113.9"),
        ("reserved-identity", "", "reserved:kube-apiserver"),
        ("workload", "shop/web", ""),
        ("workload-name", "web", ""),
        ("app", "web", ""),
        ("POD|ip", "shop/web-0", "203.0.113.9"),
    ],
)
def test_identifiers(identifier: str, source: str, destination: str) -> None:
    """The first that is not empty; of both sides."""
    (metric,) = parse_text(f"flow:sourceContext={identifier};destinationContext={identifier}")
    context = Context(metric)
    assert context.labels == ("source", "destination")
    assert context.values(SOME) == (source, destination)
    assert context.values(SOME, swapped=True) == (destination, source)


def test_each_label_that_may_be_asked_for_has_its_value() -> None:
    """Of both sides, in a fixed order; what a side does not have is empty."""
    (metric,) = parse_text("flow:labelsContext=" + "|".join(reversed(LABELS)))
    context = Context(metric)
    assert dict(zip(context.labels, context.values(SOME), strict=True)) == {
        "source_ip": "10.1.0.1",
        "source_pod": "web-0",
        "source_namespace": "shop",
        "source_workload": "web",
        "source_workload_kind": "StatefulSet",
        "source_app": "web",
        "destination_ip": "203.0.113.9",
        "destination_pod": "",
        "destination_namespace": "",
        "destination_workload": "",
        "destination_workload_kind": "",
        "destination_app": "",
        "traffic_direction": "egress",
    }
    assert context.labels == LABELS
    assert context.values(flow())[-1] == "unknown"


def test_options_for_one_direction_go_before_those_for_both() -> None:
    """The label is there whichever option is given."""
    (metric,) = parse_text(
        "flow:sourceEgressContext=app;sourceContext=ip;destinationIngressContext=ip"
    )
    context = Context(metric)
    assert context.labels == ("source", "destination")
    assert context.values(SOME) == ("web", "")
    other = flow(IP={"source": "10.1.0.1", "destination": "10.1.0.2"}, traffic_direction="INGRESS")
    assert context.values(other) == ("10.1.0.1", "10.1.0.2")


def test_pods_are_named_by_pod_or_by_both_labels() -> None:
    """Only then does a series end with its pod."""

    def pods(text: str) -> tuple[tuple[str, str], ...]:
        (metric,) = parse_text(text)
        return Context(metric).pods(SOME)

    assert pods("flow:sourceContext=pod") == (("shop", "web-0"),)
    assert pods("flow:labelsContext=source_pod,source_namespace") == (("shop", "web-0"),)
    assert pods("flow:labelsContext=source_pod") == ()
    assert pods("flow:sourceContext=pod-name;destinationContext=pod") == ()


FILE = b"""
metrics:
  - name: drop
    contextOptions:
      - {name: sourceContext, values: [Namespace]}
    includeFilters:
      - {source_pod: ["shop/"]}
      - {sourcePod: ["default/"]}
    excludeFilters:
      - {destination_port: ["53"]}
  - name: dns
"""


def test_the_file() -> None:
    """Options as lists, filters as in Hubble's API in JSON; nothing at all is a list of none."""
    drop, dns = parse_file(FILE)
    assert dns == Metric("dns", {})
    assert drop.options == {"sourcecontext": ("namespace",)}
    assert [list(one.source_pod) for one in drop.include] == [["shop/"], ["default/"]]
    assert [list(one.destination_port) for one in drop.exclude] == [["53"]]
    assert parse_file(b"") == ()
    assert parse_file(b"metrics: []") == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"metrics: 7", "no list of metrics"),
        (b"{", "no list of metrics"),
        (b"metrics: [{name: nothing}]", 'no metric "nothing"'),
        (
            b"metrics: [{name: drop, includeFilters: [{planet: [x]}]}]",
            r"includeFilters\[0\].*planet",
        ),
        (b"metrics: [{name: drop, excludeFilters: [{source_ip: [x]}]}]", r"excludeFilters\[0\]"),
    ],
)
def test_a_file_that_cannot_be_used(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_file(data)
