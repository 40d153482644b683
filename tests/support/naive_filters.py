"""Flow filters read from their description, one flow and one field at a time, for comparison."""

import fnmatch
import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from wire.hubble import flow_pb2 as f


def passes(
    flow: f.Flow, whitelist: Iterable[f.FlowFilter], blacklist: Iterable[f.FlowFilter]
) -> bool:
    """Some filter of the whitelist holds (or there is none), and none of the blacklist."""
    white = list(whitelist)
    if white and not any(holds(flow, one) for one in white):
        return False
    return not any(holds(flow, one) for one in blacklist)


def holds(flow: f.Flow, one: f.FlowFilter) -> bool:
    """For each field that is set, one of its values is met."""
    return all(
        any(_meets(flow, field.name, value) for value in values)
        for field, values in one.ListFields()
    )


def _meets(flow: f.Flow, name: str, value: Any) -> bool:
    side, _, rest = name.partition("_")
    if side in ("source", "destination"):
        return _side(flow, side, rest, value)
    layer = flow.l4.WhichOneof("protocol") or ""
    match name:
        case "uuid":
            return bool(flow.uuid == value)
        case "verdict":
            return bool(flow.verdict == value)
        case "drop_reason_desc":
            return bool(flow.verdict == f.DROPPED and flow.drop_reason_desc == value)
        case "event_type":
            kind = flow.event_type
            same = not value.match_sub_type or kind.sub_type == value.sub_type
            return bool((not value.type or kind.type == value.type) and same)
        case "reply":
            if flow.HasField("is_reply"):
                return bool(flow.is_reply.value == value)
            return bool(flow.verdict == f.DROPPED and not value)
        case "encrypted":
            return bool(flow.IP.encrypted == value)
        case "ip_version":
            return bool(flow.IP.ipVersion == value)
        case "traffic_direction":
            return bool(flow.traffic_direction == value)
        case "protocol":
            wanted = {"icmp": {"icmpv4", "icmpv6"}}.get(value.lower(), {value.lower()})
            return layer.lower() in wanted or (flow.l7.WhichOneof("record") or "") in wanted
        case "tcp_flags":
            set_ = {field.name for field, _ in flow.l4.TCP.flags.ListFields()}
            return layer == "TCP" and {field.name for field, _ in value.ListFields()} <= set_
        case "node_name":
            return _node(flow.node_name, value)
        case "dns_query":
            return flow.l7.HasField("dns") and bool(re.search(value, flow.l7.dns.query))
        case "http_status_code":
            code = str(flow.l7.http.code)
            if not flow.l7.http.code:
                return False
            return code.startswith(value[:-1]) if value.endswith("+") else code == value
        case "http_method":
            return flow.l7.HasField("http") and flow.l7.http.method.lower() == value.lower()
    raise AssertionError(name)


def _side(flow: f.Flow, side: str, what: str, value: Any) -> bool:
    end: f.Endpoint = getattr(flow, side)
    match what:
        case "ip":
            address = getattr(flow.IP, side)
            if "/" not in value:
                return bool(address == value)
            if not address:
                return False
            network = ipaddress.ip_network(value, strict=False)
            return ipaddress.ip_address(address) in network
        case "pod":
            return _named(end.namespace, end.pod_name, value)
        case "service":
            service = getattr(flow, f"{side}_service")
            return _named(service.namespace, service.name, value)
        case "fqdn":
            names = getattr(flow, f"{side}_names")
            return any(fnmatch.fnmatchcase(_plain(name), _plain(value)) for name in names)
        case "label":
            return _selected(end.labels, value)
        case "identity":
            return bool(end.identity == value)
        case "workload":
            return any(
                (not value.name or one.name == value.name)
                and (not value.kind or one.kind == value.kind)
                for one in end.workloads
            )
        case "cluster_name":
            return bool(end.cluster_name == value)
        case "port":
            layer = flow.l4.WhichOneof("protocol")
            if layer not in ("TCP", "UDP", "SCTP"):
                return False
            return bool(getattr(getattr(flow.l4, layer), f"{side}_port") == int(value))
    raise AssertionError(what)


def _named(namespace: str, name: str, value: str) -> bool:
    if not namespace and not name:
        return False
    wanted, slash, prefix = value.partition("/")
    if not slash:
        wanted, prefix = "default", value
    return (not wanted or namespace == wanted) and name.startswith(prefix)


def _plain(text: str) -> str:
    return text.lower().removesuffix(".")


def _node(name: str, value: str) -> bool:
    cluster, node = name.split("/") if "/" in name else ("default", name)
    wanted, slash, pattern = value.partition("/")
    if not slash:
        wanted, pattern = "", value
    return fnmatch.fnmatchcase(cluster, wanted or "*") and fnmatch.fnmatchcase(node, pattern or "*")


def _selected(labels: Iterable[str], selector: str) -> bool:
    return all(_requirement(list(labels), part) for part in re.split(r",(?![^(]*\))", selector))


def _requirement(labels: list[str], text: str) -> bool:
    if text.startswith("!"):
        return not _values(labels, text[1:])
    if found := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", text):
        key, how, listed = found.groups()
        met = bool(set(_values(labels, key)) & set(listed.split(",")))
        return met if how == "in" else not met
    if "!=" in text:
        key, value = text.split("!=")
        return value not in _values(labels, key)
    if "=" in text:
        key, value = re.split("==?", text)
        return value in _values(labels, key)
    return bool(_values(labels, text))


def _values(labels: list[str], key: str) -> list[str]:
    source, colon, name = key.partition(":")
    if not colon:
        source, name = "", key
    found = []
    for label in labels:
        origin, _, rest = label.partition(":")
        own, _, value = rest.partition("=")
        if own == name and source in ("", origin):
            found.append(value)
    return found
