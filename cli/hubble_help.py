"""What ``--help`` says of the filter flags of ``observe``. Pure."""

from typing import Final

from cli.hubble_flags import IDENTITIES, POINTS
from wire.hubble import flow_pb2


def _names(names: list[str]) -> str:
    return ", ".join(name.lower() for name in names)


# Of the flags that there are for either side: what a value is.
_SIDED: Final = {
    "ip": "address or CIDR",
    "pod": "[namespace/]prefix of a name; without a namespace: default",
    "fqdn": "name that was looked up; * stands for anything",
    "label": "labels: a=b, a!=b, a in (b,c), a, !a, with commas: all of them",
    "service": "[namespace/]prefix of a name; without a namespace: default",
    "identity": f"number, or one of {', '.join(IDENTITIES)}",
    "port": "number",
    "workload": "[Kind/]name, or Kind/",
    "cluster": "name of a cluster",
    "namespace": "namespace; with --pod or --service: theirs",
    "all-namespaces": "any namespace; with --pod or --service: of any",
}
_SIDES: Final = {"from-": "Source: ", "to-": "Destination: ", "": "Either side: "}
HELP: Final = {
    **{
        f"{side}{name}": f"{where}{text}."
        for side, where in _SIDES.items()
        for name, text in _SIDED.items()
    },
    "snat-ip": "Source after translation: address or CIDR.",
    "type": "drop, trace, policy-verdict, trace-sock, l7, capture or a number; also with a kind of "
    f"it, as trace:to-overlay ({', '.join(POINTS)}) or drop:133.",
    "verdict": f"One of {_names(flow_pb2.Verdict.keys()[1:])}.",
    "drop-reason-desc": "Name of a reason, as policy_denied, policy_deny, unencrypted_traffic.",
    "traffic-direction": "ingress or egress: of the connection, as its pod on the node sees it.",
    "protocol": "tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, http, dns or kafka.",
    "ip-version": "v4, v6 or none.",
    "ipv4": "Of IPv4.",
    "ipv6": "Of IPv6.",
    "http-status": "As 404, 40+ or 5+.",
    "http-method": "As GET.",
    "http-path": "Expression (RE2) that occurs in the path.",
    "http-url": "Expression (RE2) that occurs in the URL.",
    "http-header": "key:value, both exactly.",
    "tcp-flags": "All of these, with commas: syn,ack.",
    "node-name": "[cluster/]node that told of it, or cluster/; * stands for anything.",
    "node-label": "Labels of that node, as for --label.",
    "interface": "Name of the device that it passed.",
    "uuid": "Exactly.",
    "trace-id": "Exactly.",
    "ip-trace-id": "Number.",
    "encrypted": "What nobody could read on its way between nodes.",
    "unencrypted": "All but that.",
    "cel-expression": "Expression (CEL) over _flow that is true, as _flow.l4.TCP.flags.SYN.",
}
