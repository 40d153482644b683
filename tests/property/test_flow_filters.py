"""Filters of flows decide as their description says, whatever is asked of whatever flow."""

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.filters import compile_filters, event_types
from tests.support import naive_filters
from wire.hubble import flow_pb2 as f

_LABELS = ["k8s:app=web", "k8s:app=pay", "k8s:tier=", "reserved:host", "cni:app=web"]
_IP4, _IP6 = ["10.1.0.5", "10.1.2.9", "192.0.2.7"], ["fd00::5", "fd00:1::9"]
_NAMES = ["web-1", "web-2", "pay-7", ""]
_SPACES = ["default", "shop", ""]
_HOSTS = ["api.example.com", "API.example.org.", "pay.shop.svc"]
_PORTS = [53, 80, 8080]

_WORKLOADS = st.fixed_dictionaries(
    {"name": st.sampled_from(["web", "pay"]), "kind": st.sampled_from(["Deployment", "DaemonSet"])}
)
_ENDS = st.fixed_dictionaries(
    {
        "identity": st.integers(0, 3),
        "namespace": st.sampled_from(_SPACES),
        "pod_name": st.sampled_from(_NAMES),
        "labels": st.lists(st.sampled_from(_LABELS), max_size=3, unique=True),
        "workloads": st.lists(_WORKLOADS, max_size=2),
        "cluster_name": st.sampled_from(["east", "west", ""]),
    }
)
_PAIR = st.fixed_dictionaries(
    {"source_port": st.sampled_from(_PORTS), "destination_port": st.sampled_from(_PORTS)}
)
_FLAGS = st.dictionaries(st.sampled_from(["SYN", "ACK", "FIN"]), st.just(True))
_L4 = st.one_of(
    st.just({}),
    st.builds(lambda ports, flags: {"TCP": {**ports, "flags": flags}}, _PAIR, _FLAGS),
    _PAIR.map(lambda ports: {"UDP": ports}),
    _PAIR.map(lambda ports: {"SCTP": ports}),
    st.sampled_from([{"ICMPv4": {"type": 8}}, {"ICMPv6": {"type": 128}}]),
)
_L7 = st.one_of(
    st.none(),
    st.sampled_from([{"dns": {"query": "api.example.com."}}, {"dns": {"query": "pay."}}]),
    st.builds(
        lambda code, method: {"http": {"code": code, "method": method}},
        st.sampled_from([0, 200, 404, 503]),
        st.sampled_from(["GET", "put"]),
    ),
)
_VERDICTS = st.sampled_from(["FORWARDED", "DROPPED", "AUDIT", "TRACED"])
_SERVICES = st.fixed_dictionaries(
    {"name": st.sampled_from(["", "web"]), "namespace": st.sampled_from(_SPACES)}
)
# Verdicts and the kinds of events that have them go together, as the ring's records do.
_TYPES = {"FORWARDED": (4, 5, 129), "DROPPED": (1, 5, 129), "AUDIT": (5, 129), "TRACED": (7,)}


@st.composite
def _flows(draw: Any) -> f.Flow:
    verdict = draw(_VERDICTS)
    l7 = draw(_L7)
    kind = 129 if l7 and 129 in _TYPES[verdict] else draw(st.sampled_from(_TYPES[verdict][:2]))
    is_6 = draw(st.booleans())
    addresses = st.sampled_from(_IP6 if is_6 else _IP4)
    made: dict[str, Any] = {
        "uuid": draw(st.sampled_from(["u1", "u2"])),
        "verdict": verdict,
        "event_type": {"type": kind, "sub_type": draw(st.integers(0, 3))},
        "IP": {
            "source": draw(addresses),
            "destination": draw(addresses),
            "ipVersion": "IPv6" if is_6 else "IPv4",
            "encrypted": draw(st.booleans()),
        },
        "l4": draw(_L4),
        "source": draw(_ENDS),
        "destination": draw(_ENDS),
        "source_names": draw(st.lists(st.sampled_from(_HOSTS), max_size=2)),
        "destination_names": draw(st.lists(st.sampled_from(_HOSTS), max_size=2)),
        "source_service": draw(_SERVICES),
        "destination_service": draw(_SERVICES),
        "traffic_direction": draw(st.sampled_from(["INGRESS", "EGRESS"])),
        "node_name": draw(st.sampled_from(["west/n1", "east/n2", "n1"])),
    }
    if verdict == "DROPPED":
        made["drop_reason_desc"] = draw(st.sampled_from(["POLICY_DENIED", "INVALID_SOURCE_IP"]))
    else:
        made["is_reply"] = draw(st.booleans())
    if kind == 129 and l7:
        made["l7"] = l7
    return json_format.ParseDict(made, f.Flow())


def _some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


_SELECTORS = (
    "app", "!app", "app=web", "app==pay", "app!=web", "k8s:app=web", "cni:app", "tier=",
    "app in (web,x)", "app notin (web,pay)", "app=web,tier", "reserved:host", "nothing",
)  # fmt: skip
_SIDED = {
    "ip": _some(*_IP4, *_IP6, "10.1.0.0/16", "fd00::/32", "0.0.0.0/0"),
    "pod": _some("web", "shop/", "/web-1", "shop/pay", "default/web-"),
    "service": _some("web", "shop/web", "/w"),
    "fqdn": _some("api.example.com", "*.example.org", "*.svc.", "PAY.*"),
    "label": _some(*_SELECTORS),
    "identity": _some(0, 1, 2),
    "workload": _some({"name": "web"}, {"kind": "DaemonSet"}, {"name": "pay", "kind": "DaemonSet"}),
    "cluster_name": _some("east", "west"),
    "port": _some("53", "80"),
}
_FIELDS = {
    **{f"{side}_{name}": s for side in ("source", "destination") for name, s in _SIDED.items()},
    "uuid": _some("u1", "u3"),
    "verdict": _some("FORWARDED", "DROPPED", "AUDIT", "TRACED"),
    "drop_reason_desc": _some("POLICY_DENIED"),
    "event_type": _some(
        {"type": 4},
        {"type": 1},
        {"type": 129},
        {"type": 5, "match_sub_type": True, "sub_type": 2},
        {"match_sub_type": True, "sub_type": 1},
    ),
    "reply": _some(True, False),
    "encrypted": _some(True, False),
    "ip_version": _some("IPv4", "IPv6"),
    "traffic_direction": _some("INGRESS", "EGRESS"),
    "protocol": _some("tcp", "UDP", "icmp", "icmpv6", "dns", "http", "sctp"),
    "tcp_flags": _some({"SYN": True}, {"SYN": True, "ACK": True}),
    "node_name": _some("n1", "west/", "/n*", "default/n1", "e*/n2"),
    "dns_query": _some("^api", "pay", "[.]$"),
    "http_status_code": _some("200", "4+", "50+"),
    "http_method": _some("get", "PUT"),
}


@st.composite
def _filters(draw: Any) -> f.FlowFilter:
    names = draw(st.lists(st.sampled_from(sorted(_FIELDS)), min_size=0, max_size=3, unique=True))
    made = {name: draw(_FIELDS[name]) for name in names}
    if any(name.startswith("http") for name in made):
        made.pop("event_type", None)  # else it must name 129
    return json_format.ParseDict(made, f.FlowFilter())


_LISTS = st.lists(_filters(), max_size=2)


@pytest.mark.parametrize("name", sorted(_FIELDS))
def test_each_field_does_as_described(name: str) -> None:
    @settings(max_examples=20)
    @given(st.lists(_flows(), min_size=4, max_size=4), _FIELDS[name])
    def check(flows: list[f.Flow], values: list[Any]) -> None:
        one = json_format.ParseDict({name: values}, f.FlowFilter())
        compiled = compile_filters([one], [])
        assert compiled is not None
        for flow in flows:
            assert compiled(flow) == naive_filters.holds(flow, one), (flow, one)

    check()


@given(_flows(), _LISTS, _LISTS)
def test_filters_do_as_described(
    flow: f.Flow, white: list[f.FlowFilter], black: list[f.FlowFilter]
) -> None:
    compiled = compile_filters(white, black)
    wanted = naive_filters.passes(flow, white, black)
    assert (compiled is None or compiled(flow)) == wanted


@given(_flows(), st.lists(_filters(), min_size=1, max_size=2))
def test_what_is_not_decoded_would_not_have_passed(flow: f.Flow, white: list[f.FlowFilter]) -> None:
    """The first byte of a record decides only what the filter would have decided alike."""
    types = event_types(white)
    if types is not None and flow.event_type.type not in types:
        assert not naive_filters.passes(flow, white, [])


@given(st.lists(_flows(), min_size=1, max_size=8), _filters(), _filters())
def test_filters_are_alternatives_and_fields_restrict(
    flows: list[f.Flow], one: f.FlowFilter, other: f.FlowFilter
) -> None:
    """A list passes what any of it passes; the same on the blacklist takes exactly that away."""

    def passed(white: list[f.FlowFilter], black: list[f.FlowFilter]) -> set[int]:
        compiled = compile_filters(white, black)
        return {n for n, flow in enumerate(flows) if compiled is None or compiled(flow)}

    every = set(range(len(flows)))
    assert passed([one, other], []) == passed([one], []) | passed([other], [])
    assert passed([], [one]) == every - passed([one], [])
