"""The filter flags of ``observe`` as FlowFilters. Pure.

One-sided flags (``--from-pod``) hold for every filter; two-sided ones (``--pod``) make two filters,
one with the source's field and one with the destination's, of which either may hold. A flag after
``--not`` goes to the blacklist. Values of one flag are alternatives, flags restrict each other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wire.hubble import flow_pb2

Filter = flow_pb2.FlowFilter

IDENTITIES: Final = {
    "unknown": 0,
    "host": 1,
    "world": 2,
    "unmanaged": 3,
    "health": 4,
    "init": 5,
    "remote-node": 6,
    "kube-apiserver": 7,
    "ingress": 8,
    "world-ipv4": 9,
    "world-ipv6": 10,
}
_EVENTS: Final = {
    "drop": 1,
    "capture": 3,
    "trace": 4,
    "policy-verdict": 5,
    "trace-sock": 7,
    "l7": 129,
}
POINTS: Final = (
    "to-endpoint",
    "to-proxy",
    "to-host",
    "to-stack",
    "to-overlay",
    "from-endpoint",
    "from-proxy",
    "from-host",
    "from-stack",
    "from-overlay",
    "from-network",
    "to-network",
    "from-crypto",
    "to-crypto",
)
TRANSLATIONS: Final = ("pre-xlate-fwd", "post-xlate-fwd", "pre-xlate-rev", "post-xlate-rev")
_SIDED: Final = ("ip", "pod", "fqdn", "label", "service", "identity", "port", "workload", "cluster")
_SCOPES: Final = ("pod", "service", "namespace", "all-namespaces")  # must be of one side each


class FlagError(ValueError):
    """Flags or values that do not go together; the message names them."""


class Given(NamedTuple):
    """One occurrence of a filter flag."""

    flag: str  # without dashes
    value: str
    negated: bool


def _identity(value: str) -> int:
    if value in IDENTITIES:
        return IDENTITIES[value]
    if value.isascii() and value.isdigit() and int(value) < 2**32:
        return int(value)
    raise FlagError(f"identity {value!r}: neither a number nor one of {', '.join(IDENTITIES)}")


def _workload(value: str) -> flow_pb2.Workload:
    kind, slash, name = value.rpartition("/")
    if not value or value == "/":
        raise FlagError(f"workload {value!r}: not of the form [Kind/]name or Kind/")
    return flow_pb2.Workload(name=name, kind=kind if slash else "")


def _sub_type(kind: str, text: str) -> int:
    names = {"trace": POINTS, "trace-sock": ("", *TRANSLATIONS)}.get(kind, ())
    if text and text in names:
        return names.index(text)
    if text.isascii() and text.isdigit():
        return int(text)
    known = f" or one of {', '.join(n for n in names if n)}" if names else ""
    raise FlagError(f"type {kind}:{text}: {text!r} is not a number{known}")


def _event(value: str) -> flow_pb2.EventTypeFilter:
    kind, colon, sub = value.partition(":")
    if kind in _EVENTS:
        number = _EVENTS[kind]
    elif kind.isascii() and kind.isdigit() and int(kind) < 256:
        number = int(kind)
    else:
        raise FlagError(f"type {value!r}: not a number nor one of {', '.join(_EVENTS)}")
    made = flow_pb2.EventTypeFilter(type=number)
    if colon:
        made.match_sub_type, made.sub_type = True, _sub_type(kind, sub)
    return made


def _flags(value: str) -> flow_pb2.TCPFlags:
    made = flow_pb2.TCPFlags()
    for name in value.split(","):
        if name.upper() not in flow_pb2.TCPFlags.DESCRIPTOR.fields_by_name:
            known = ", ".join(flow_pb2.TCPFlags.DESCRIPTOR.fields_by_name)
            raise FlagError(f"tcp-flags {value!r}: {name!r} is none of {known}")
        setattr(made, name.upper(), True)
    return made


def _header(value: str) -> flow_pb2.HTTPHeader:
    key, colon, content = value.partition(":")
    if not colon or not key:
        raise FlagError(f"http-header {value!r}: not of the form key:value")
    return flow_pb2.HTTPHeader(key=key, value=content)


def _interface(value: str) -> flow_pb2.NetworkInterface:
    return flow_pb2.NetworkInterface(name=value)


def _number(flag: str) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isascii() and value.isdigit() and int(value) < 2**64):
            raise FlagError(f"{flag} {value!r}: not a number")
        return int(value)

    return parse


def _enum(flag: str, pairs: Iterable[tuple[str, int]]) -> Callable[[str], int]:
    known = {name.upper(): int(number) for name, number in pairs}

    def parse(value: str) -> int:
        if value.upper() not in known:
            raise FlagError(f"{flag} {value!r}: none of {', '.join(known)}")
        return known[value.upper()]

    return parse


_IP_VERSIONS: Final = (
    *(("none", 0), ("v4", 1), ("v6", 2)),
    *(("4", 1), ("6", 2), ("ipv4", 1), ("ipv6", 2)),
)
_VALUES: Final[dict[str, Callable[[str], object]]] = {
    "identity": _identity,
    "workload": _workload,
    "type": _event,
    "tcp-flags": _flags,
    "http-header": _header,
    "interface": _interface,
    "ip-trace-id": _number("ip-trace-id"),
    "verdict": _enum("verdict", flow_pb2.Verdict.items()),
    "drop-reason-desc": _enum("drop-reason-desc", flow_pb2.DropReason.items()),
    "traffic-direction": _enum("traffic-direction", flow_pb2.TrafficDirection.items()),
    "ip-version": _enum("ip-version", _IP_VERSIONS),
}
_FIELDS: Final = {  # one-sided flags that are not from- and to- of something
    "snat-ip": "source_ip_xlated",
    "type": "event_type",
    "verdict": "verdict",
    "drop-reason-desc": "drop_reason_desc",
    "traffic-direction": "traffic_direction",
    "protocol": "protocol",
    "ip-version": "ip_version",
    "http-status": "http_status_code",
    "http-method": "http_method",
    "http-path": "http_path",
    "http-url": "http_url",
    "http-header": "http_header",
    "tcp-flags": "tcp_flags",
    "node-name": "node_name",
    "node-label": "node_labels",
    "interface": "interface",
    "uuid": "uuid",
    "trace-id": "trace_id",
    "ip-trace-id": "ip_trace_id",
    "cel-expression": "experimental.cel_expression",
}
SWITCHES: Final = {  # flags without a value: field and value
    "encrypted": ("encrypted", True),
    "unencrypted": ("encrypted", False),
    "ipv4": ("ip_version", 1),
    "ipv6": ("ip_version", 2),
}
VALUED: Final = (
    *(f"{side}{name}" for name in (*_SIDED, "namespace") for side in ("from-", "to-", "")),
    *_FIELDS,
)
ALL_NAMESPACES: Final = ("from-all-namespaces", "to-all-namespaces", "all-namespaces")


def _side_field(side: str, name: str) -> str:
    return f"{side}_{'cluster_name' if name == 'cluster' else name}"


def _add(one: Filter, path: str, value: object) -> None:
    holder: object = one
    *parents, last = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    values = getattr(holder, last)
    values.append(value)


@dataclass
class _List:
    """The white- or the blacklist while it is built."""

    left: Filter = field(default_factory=Filter)
    right: Filter = field(default_factory=Filter)
    used: list[str] = field(default_factory=list)
    namespaces: dict[str, list[str]] = field(default_factory=dict)  # by "", from-, to-
    scoped: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # by side

    def add(self, flag: str, value: str) -> None:
        self._refuse_conflicts(flag)
        self.used.append(flag)
        side, name = _split(flag)
        if flag in ALL_NAMESPACES:
            self.namespaces.setdefault(side, []).append("")
        elif name == "namespace":
            if not value:
                raise FlagError(f"--{flag}: a namespace must not be empty")
            self.namespaces.setdefault(side, []).append(value)
        elif name in ("pod", "service"):
            self.scoped.setdefault(side, []).append((name, value))
        elif flag in SWITCHES:
            self._both(*SWITCHES[flag])
        elif flag in _FIELDS:
            self._both(_FIELDS[flag], _VALUES.get(flag, str)(value))
        else:
            self._sided(side, name, _VALUES.get(name, str)(value))

    def _both(self, path: str, value: object) -> None:
        _add(self.left, path, value)
        _add(self.right, path, value)

    def _sided(self, side: str, name: str, value: object) -> None:
        if side == "from-":
            self._both(_side_field("source", name), value)
        elif side == "to-":
            self._both(_side_field("destination", name), value)
        else:
            _add(self.left, _side_field("source", name), value)
            _add(self.right, _side_field("destination", name), value)

    def _refuse_conflicts(self, flag: str) -> None:
        side, name = _split(flag)
        family = _SCOPES if name in _SCOPES else (name,)
        for before in self.used:
            its_side, its_name = _split(before)
            if flag in _FIELDS or before in _FIELDS or its_name not in family:
                continue
            if (side == "") != (its_side == ""):
                raise FlagError(f"filters --{before} and --{flag} cannot be combined")

    def filters(self) -> list[Filter]:
        """At most two; none when nothing was asked for."""
        for side in ("", "from-", "to-"):
            self._scope(side)
        if self.left == Filter():
            return []
        return [self.left] if self.left == self.right else [self.left, self.right]

    def _scope(self, side: str) -> None:
        """Pods and services within the namespaces of their side; namespaces alone are pods."""
        namespaces, scoped = self.namespaces.get(side, []), self.scoped.get(side, [])
        if not scoped:
            for namespace in namespaces:
                self._sided(side, "pod", f"{namespace}/")
        for name, value in scoped:
            if namespaces and "/" in value:
                raise FlagError(f"--{side}{name} {value}: names a namespace, as another flag does")
            for full in [f"{namespace}/{value}" for namespace in namespaces] or [value]:
                self._sided(side, name, full)


def _split(flag: str) -> tuple[str, str]:
    """(``from-``, ``to-`` or nothing; the rest)."""
    for side in ("from-", "to-"):
        if flag.startswith(side):
            return side, flag.removeprefix(side)
    return "", flag


def filters_of(given: Sequence[Given]) -> tuple[list[Filter], list[Filter]]:
    """(whitelist, blacklist) of the flags in the order they came; ``FlagError``."""
    allow, deny = _List(), _List()
    for one in given:
        (deny if one.negated else allow).add(one.flag, one.value)
    return allow.filters(), deny.filters()
