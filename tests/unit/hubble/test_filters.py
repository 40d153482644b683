"""Every filter of a flow: what it takes, what it leaves, what it refuses."""

import pytest
from google.protobuf import json_format

from hubble.filters import FilterError, compile_filters, event_types
from wire.hubble import flow_pb2

TCP = {
    "verdict": "FORWARDED",
    "uuid": "u1",
    "node_name": "west/node-1",
    "node_labels": ["zone=a"],
    "IP": {"source": "10.1.0.5", "destination": "10.2.0.9", "ipVersion": "IPv4"},
    "l4": {"TCP": {"source_port": 41000, "destination_port": 8080, "flags": {"SYN": True}}},
    "source": {
        "identity": 21001,
        "namespace": "shop",
        "pod_name": "cart-6c9d",
        "labels": ["k8s:app=cart", "k8s:io.kubernetes.pod.namespace=shop"],
        "workloads": [{"name": "cart", "kind": "Deployment"}],
        "cluster_name": "west",
    },
    "destination": {
        "identity": 21002,
        "namespace": "default",
        "pod_name": "pay-77f",
        "labels": ["reserved:host"],
        "workloads": [{"name": "pay", "kind": "StatefulSet"}],
        "cluster_name": "east",
    },
    "source_service": {"name": "cart", "namespace": "shop"},
    "destination_service": {"name": "pay", "namespace": "shop"},
    "source_names": ["Cart.Example.org"],
    "destination_names": ["api.example.org"],
    "event_type": {"type": 4, "sub_type": 3},
    "traffic_direction": "INGRESS",
    "is_reply": False,
    "interface": {"index": 7, "name": "lxc1"},
    "trace_context": {"parent": {"trace_id": "abc"}},
    "ip_trace_id": {"trace_id": "99"},
    "Summary": "TCP Flags: SYN",
}
DROP = {
    "verdict": "DROPPED",
    "drop_reason_desc": "POLICY_DENIED",
    "IP": {
        "source": "fd00::5",
        "destination": "fd00::9",
        "ipVersion": "IPv6",
        "encrypted": True,
        "source_xlated": "192.0.2.1",
    },
    "l4": {"UDP": {"source_port": 5000, "destination_port": 53}},
    "event_type": {"type": 1, "sub_type": 133},
    "traffic_direction": "EGRESS",
    "node_name": "node-9",
}
HTTP = {
    "verdict": "FORWARDED",
    "Type": "L7",
    "is_reply": True,
    "event_type": {"type": 129},
    "l7": {
        "type": "RESPONSE",
        "http": {
            "code": 404,
            "method": "GET",
            "url": "http://pay.shop/charge/7?x=1",
            "headers": [{"key": "a", "value": "b"}],
        },
    },
}
DNS = {"event_type": {"type": 129}, "l7": {"dns": {"query": "pay.shop.svc.cluster.local."}}}
ICMP = {"l4": {"ICMPv6": {"type": 128}}, "verdict": "TRACED", "event_type": {"type": 7}}
SCENE = {"tcp": TCP, "drop": DROP, "http": HTTP, "dns": DNS, "icmp": ICMP}

MATCHES: list[tuple[dict[str, object], str]] = [
    ({}, "tcp drop http dns icmp"),
    ({"uuid": ["u1"]}, "tcp"),
    ({"source_ip": ["10.1.0.5"]}, "tcp"),
    ({"source_ip": ["10.1.0.6", "10.1.0.0/24"]}, "tcp"),
    ({"source_ip": ["10.1.0.77/24"]}, "tcp"),
    ({"source_ip": ["FD00:0::5"]}, "drop"),
    ({"source_ip": ["0.0.0.0/0"]}, "tcp"),
    ({"source_ip": ["::/0"]}, "drop"),
    ({"destination_ip": ["10.2.0.9", "fd00::/64"]}, "tcp drop"),
    ({"source_ip_xlated": ["192.0.2.0/24"]}, "drop"),
    ({"source_pod": ["shop/cart"]}, "tcp"),
    ({"source_pod": ["cart"]}, ""),
    ({"source_pod": ["shop/"]}, "tcp"),
    ({"source_pod": ["/cart-"]}, "tcp"),
    ({"source_pod": ["/"]}, "tcp"),
    ({"source_pod": ["shop/art"]}, ""),
    ({"destination_pod": ["pay"]}, "tcp"),
    ({"source_service": ["shop/ca"]}, "tcp"),
    ({"destination_service": ["pay"]}, ""),
    ({"destination_service": ["/pay"]}, "tcp"),
    ({"source_fqdn": ["cart.example.org."]}, "tcp"),
    ({"destination_fqdn": ["*.example.org"]}, "tcp"),
    ({"destination_fqdn": ["example.org"]}, ""),
    ({"source_label": ["app=cart"]}, "tcp"),
    ({"source_label": ["k8s:app == cart"]}, "tcp"),
    ({"source_label": ["container:app=cart"]}, ""),
    ({"source_label": ["app in (x, cart),k8s:io.kubernetes.pod.namespace"]}, "tcp"),
    ({"source_label": ["app notin (x,y)", "nothing"]}, "tcp drop http dns icmp"),
    ({"source_label": ["!app"]}, "drop http dns icmp"),
    ({"source_label": ["app!=cart"]}, "drop http dns icmp"),
    ({"destination_label": ["reserved:host"]}, "tcp"),
    ({"node_labels": ["zone=a"]}, "tcp"),
    ({"source_identity": [21001, 5]}, "tcp"),
    ({"destination_identity": [21002]}, "tcp"),
    ({"source_workload": [{"name": "cart"}]}, "tcp"),
    ({"source_workload": [{"name": "cart", "kind": "DaemonSet"}]}, ""),
    ({"destination_workload": [{"kind": "StatefulSet"}]}, "tcp"),
    ({"source_cluster_name": ["west"]}, "tcp"),
    ({"destination_cluster_name": ["west", "east"]}, "tcp"),
    ({"node_name": ["node-1"]}, "tcp"),
    ({"node_name": ["west/"]}, "tcp"),
    ({"node_name": ["default/node-9", "east/node-1"]}, "drop"),
    ({"node_name": ["/node-*"]}, "tcp drop"),
    ({"event_type": [{"type": 4}]}, "tcp"),
    ({"event_type": [{"type": 4, "match_sub_type": True}]}, ""),
    ({"event_type": [{"match_sub_type": True, "sub_type": 3}]}, "tcp"),
    ({"verdict": ["DROPPED", "TRACED"]}, "drop icmp"),
    ({"drop_reason_desc": ["POLICY_DENIED"]}, "drop"),
    ({"drop_reason_desc": ["DROP_REASON_UNKNOWN"]}, ""),
    ({"reply": [False]}, "tcp drop"),
    ({"reply": [True]}, "http"),
    ({"encrypted": [True]}, "drop"),
    ({"protocol": ["TCP", "icmp"]}, "tcp icmp"),
    ({"protocol": ["icmpv4"]}, ""),
    ({"protocol": ["udp", "http", "dns"]}, "drop http dns"),
    ({"source_port": ["41000"]}, "tcp"),
    ({"source_port": ["0"]}, ""),
    ({"destination_port": ["8080", "53"]}, "tcp drop"),
    ({"ip_version": ["IPv6"]}, "drop"),
    ({"ip_version": ["IP_NOT_USED"]}, "http dns icmp"),
    ({"tcp_flags": [{"SYN": True}]}, "tcp"),
    ({"tcp_flags": [{"SYN": True, "ACK": True}]}, ""),
    ({"traffic_direction": ["EGRESS"]}, "drop"),
    ({"http_status_code": ["404"]}, "http"),
    ({"http_status_code": ["4+", "50+"]}, "http"),
    ({"http_status_code": ["5+"]}, ""),
    ({"http_method": ["get"]}, "http"),
    ({"http_path": ["^/charge/[0-9]+$"]}, "http"),
    ({"http_path": ["x=1"]}, ""),
    ({"http_url": ["x=1"], "event_type": [{"type": 129}]}, "http"),
    ({"http_header": [{"key": "a", "value": "b"}]}, "http"),
    ({"http_header": [{"key": "a", "value": "c"}]}, ""),
    ({"dns_query": ["(?i)PAY\\."]}, "dns"),
    ({"trace_id": ["abc"]}, "tcp"),
    ({"ip_trace_id": ["99"]}, "tcp"),
    ({"interface": [{"index": 7}]}, "tcp"),
    ({"interface": [{"index": 7, "name": "lxc2"}, {"name": "lxc1"}]}, "tcp"),
    ({"experimental": {"cel_expression": ["_flow.verdict == Verdict.DROPPED"]}}, "drop"),
    (
        {"experimental": {"cel_expression": ["false", "_flow.source.pod_name.matches('^cart')"]}},
        "tcp",
    ),
    ({"experimental": {"cel_expression": ["_flow.source.labels[1] != ''", "true"]}}, "tcp"),
    ({"experimental": {"cel_expression": ["_flow.is_reply == false"]}}, "tcp"),
    ({"source_ip": ["10.1.0.5"], "verdict": ["DROPPED"]}, ""),
]

REFUSED = [
    ({"source_ip": ["10.1.0"]}, "source_ip '10.1.0': neither an address nor a CIDR"),
    ({"destination_ip": ["10.1.0.0/33"]}, "destination_ip '10.1.0.0/33'"),
    ({"source_pod": [""]}, "source_pod: name must not be empty"),
    ({"destination_service": [""]}, "name must not be empty"),
    ({"source_fqdn": ["a b"]}, "source_fqdn 'a b': letters"),
    ({"source_label": ["a=b=c"]}, "more than one operator"),
    ({"source_label": ["a in x"]}, "not of the form"),
    ({"source_label": ["a,"]}, "not of the form"),
    ({"source_cluster_name": [""]}, "a cluster's name must not be empty"),
    ({"node_name": [""]}, "node_name: a pattern must not be empty"),
    ({"node_name": ["we st/"]}, "node_name 'we st'"),
    ({"protocol": ["quic"]}, "unknown protocol 'quic'"),
    ({"source_port": ["65536"]}, "source_port '65536': not a number from 0 to 65535"),
    ({"source_port": ["-1"]}, "source_port '-1'"),
    ({"destination_port": ["http"]}, "destination_port 'http'"),
    ({"http_status_code": ["600"]}, "http_status_code '600'"),
    ({"http_status_code": ["4"]}, "http_status_code '4'"),
    ({"http_path": ["(?=a)"]}, r"http_path '\(\?=a\)': not a regular expression \(RE2\)"),
    ({"http_url": ["a" * 5000]}, "over 4096 characters"),
    ({"dns_query": ["("]}, "dns_query"),
    ({"http_method": ["GET"], "event_type": [{"type": 4}]}, "http_method: needs event_type 129"),
    ({"experimental": {"cel_expression": ["_flow.bad"]}}, "undefined field 'bad'"),
    ({"experimental": {"cel_expression": ["1 + 1"]}}, "must be true or false, is INT"),
    ({"experimental": {"cel_expression": ["(" * 3000]}}, "over 2048 characters"),
    ({"uuid": ["x"] * 10_001}, "over 10000 values"),
]


def a_filter(content: dict[str, object]) -> flow_pb2.FlowFilter:
    return json_format.ParseDict(content, flow_pb2.FlowFilter())


def a_flow(name: str) -> flow_pb2.Flow:
    return json_format.ParseDict(SCENE[name], flow_pb2.Flow())


@pytest.mark.parametrize(("content", "expected"), MATCHES, ids=[str(c)[:60] for c, _ in MATCHES])
def test_a_filter_takes_what_it_describes(content: dict[str, object], expected: str) -> None:
    """Of five flows exactly those; the same filter as a blacklist leaves exactly the others."""
    one = a_filter(content)
    allows, denies = compile_filters([one], []), compile_filters([], [one])
    assert allows is not None
    assert denies is not None
    for name in SCENE:
        assert allows(a_flow(name)) is (name in expected.split()), name
        assert denies(a_flow(name)) is (name not in expected.split()), name


@pytest.mark.parametrize(("content", "expected"), MATCHES, ids=[str(c)[:60] for c, _ in MATCHES])
def test_the_first_look_refuses_nothing_that_passes(content: dict[str, object], expected: str):
    """The types worth decoding hold those of every flow that passes."""
    types = event_types([a_filter(content)])
    if types is not None:
        assert {a_flow(name).event_type.type for name in expected.split()} <= types


def test_every_field_of_a_filter_is_in_the_table() -> None:
    """No field of the message without a line above."""
    fields = {field.name for field in flow_pb2.FlowFilter.DESCRIPTOR.fields}
    assert {name for content, _ in MATCHES for name in content} == fields


@pytest.mark.parametrize(("content", "reason"), REFUSED, ids=[str(c)[:60] for c, _ in REFUSED])
def test_a_value_without_meaning_is_refused(content: dict[str, object], reason: str) -> None:
    """In either list, with a message that names the field and the value."""
    with pytest.raises(FilterError, match=reason):
        compile_filters([a_filter(content)], [])
    with pytest.raises(FilterError, match=reason):
        compile_filters([], [a_filter(content)])


def test_what_a_newer_client_asks_is_refused_not_ignored() -> None:
    """A number of an enum, a field, a field inside: the reader would get more than it asked for."""
    with pytest.raises(FilterError, match="unknown verdict 99"):
        compile_filters([flow_pb2.FlowFilter.FromString(b"\x28\x63")], [])
    with pytest.raises(FilterError, match=r"whitelist\[0\]: field number 500"):
        compile_filters([flow_pb2.FlowFilter.FromString(b"\xa2\x1f\x01x")], [])
    inside = flow_pb2.FlowFilter.FromString(b"\xd2\x01\x04\xa2\x1f\x01x")
    with pytest.raises(FilterError, match=r"blacklist\[0\]\.source_workload: field number 500"):
        compile_filters([], [inside])


def test_one_of_the_whitelist_and_none_of_the_blacklist() -> None:
    """Entries are alternatives; the blacklist has the last word; no list takes all."""
    tcp, drop = a_filter({"protocol": ["tcp"]}), a_filter({"verdict": ["DROPPED"]})
    both = compile_filters([tcp, drop], [a_filter({"uuid": ["u1"]})])
    assert both is not None
    assert [name for name in SCENE if both(a_flow(name))] == ["drop"]
    assert compile_filters([], []) is None
    assert event_types([tcp, drop]) is None
    assert event_types([drop]) == {1, 5, 129}


def test_a_loop_without_end_in_sight_is_stopped() -> None:
    """An expression of nested loops costs a bounded number of steps, and is then not true."""
    numbers = "[" + ",".join("1" * 400) + "]"
    passes = compile_filters(
        [
            a_filter(
                {"experimental": {"cel_expression": [f"{numbers}.all(x,{numbers}.all(y,true))"]}}
            )
        ],
        [],
    )
    assert passes is not None
    assert passes(a_flow("tcp")) is False
