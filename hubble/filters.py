"""FlowFilters as predicates over flows, and as a first look at raw records. Pure.

A flow passes when the whitelist is empty or one of its filters holds, and none of the blacklist's
does. In a filter every field that is set must hold; one of its values suffices. An entry that
cannot be understood (a value without meaning, a field of a newer version) raises ``FilterError``
before anything is sent: a reader must not be given more than was asked for.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from google.protobuf import unknown_fields
from google.protobuf.message import Message

from hubble import expressions
from hubble.filters_fields import PREDICATES, Predicate
from hubble.patterns import FilterError
from wire.hubble import flow_pb2

VALUES_MAX: Final = 10_000  # of all filters of one request
EVENT_L7: Final = 129
_EVENTS_BY_VERDICT: Final = {  # of flows with such a verdict
    flow_pb2.Verdict.VERDICT_UNKNOWN: frozenset((3, 129)),
    flow_pb2.Verdict.FORWARDED: frozenset((4, 5, 129)),
    flow_pb2.Verdict.DROPPED: frozenset((1, 5, 129)),
    flow_pb2.Verdict.ERROR: frozenset((129,)),
    flow_pb2.Verdict.AUDIT: frozenset((5, 129)),
    flow_pb2.Verdict.REDIRECTED: frozenset((5, 129)),
    flow_pb2.Verdict.TRACED: frozenset((7,)),
    flow_pb2.Verdict.TRANSLATED: frozenset((7,)),
}


def _refuse_unknown(message: Message, where: str) -> None:
    """Fields of a newer version, at any depth."""
    unknown = unknown_fields.UnknownFieldSet(message)
    if len(unknown):
        raise FilterError(f"{where}: field number {unknown[0].field_number} is not known here")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else (value,):
                _refuse_unknown(part, f"{where}.{descriptor.name}")


def _check_http(fields: frozenset[str], one: flow_pb2.FlowFilter) -> None:
    http = sorted(name for name in fields if name.startswith("http_"))
    wants_l7 = "event_type" not in fields or any(its.type == EVENT_L7 for its in one.event_type)
    if http and not wants_l7:
        raise FilterError(f"{http[0]}: needs event_type {EVENT_L7} (l7), or none")


def _compile_one(one: flow_pb2.FlowFilter, where: str) -> Predicate:
    _refuse_unknown(one, where)
    predicates: list[Predicate] = []
    set_fields = {descriptor.name: (descriptor, value) for descriptor, value in one.ListFields()}
    _check_http(frozenset(set_fields), one)
    for name, (descriptor, values) in set_fields.items():
        if name == "experimental":
            if values.cel_expression:
                predicates.append(expressions.expressions(values.cel_expression))
            continue
        if descriptor.enum_type is not None:
            known = descriptor.enum_type.values_by_number
            for number in values:
                if number not in known:
                    raise FilterError(f"{where}: unknown {name} {number}")
        predicates.append(PREDICATES[name](values))
    return _all_of(predicates)


def _all_of(predicates: Sequence[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]
    return lambda flow: all(holds(flow) for holds in predicates)


def _count(message: Message) -> int:
    total = 0
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and not descriptor.is_repeated:
            total += _count(value)
        else:
            total += len(value) if descriptor.is_repeated else 1
    return total


def compile_filters(
    whitelist: Iterable[flow_pb2.FlowFilter], blacklist: Iterable[flow_pb2.FlowFilter]
) -> Predicate | None:
    """Does a flow pass? ``None``: every flow does. ``FilterError``."""
    allow, deny = list(whitelist), list(blacklist)
    if sum(1 + _count(one) for one in (*allow, *deny)) > VALUES_MAX:
        raise FilterError(f"over {VALUES_MAX} values in the filters of one request")
    allowed = [_compile_one(one, f"whitelist[{n}]") for n, one in enumerate(allow)]
    denied = [_compile_one(one, f"blacklist[{n}]") for n, one in enumerate(deny)]
    if not allowed and not denied:
        return None

    def passes(flow: flow_pb2.Flow) -> bool:
        if allowed and not any(holds(flow) for holds in allowed):
            return False
        return not any(holds(flow) for holds in denied)

    return passes


def _events_of(one: flow_pb2.FlowFilter) -> frozenset[int] | None:
    """The event types that can satisfy the filter; ``None``: any."""
    events: frozenset[int] | None = None

    def narrow(found: Iterable[int]) -> None:
        nonlocal events
        events = frozenset(found) if events is None else events & frozenset(found)

    if one.event_type and all(kind.type for kind in one.event_type):
        narrow(kind.type for kind in one.event_type)
    if one.verdict:
        narrow(event for verdict in one.verdict for event in _EVENTS_BY_VERDICT[verdict])
    if one.drop_reason_desc:
        narrow(_EVENTS_BY_VERDICT[flow_pb2.Verdict.DROPPED])
    l7_only = one.http_status_code or one.http_method or one.http_path or one.http_url
    if l7_only or one.http_header or one.dns_query:
        narrow((EVENT_L7,))
    return events


def event_types(whitelist: Iterable[flow_pb2.FlowFilter]) -> frozenset[int] | None:
    """The types (first byte) of records worth decoding for this whitelist; ``None``: all.

    Only of a whitelist that compiles. Whatever else passes could not have passed it.
    """
    wanted: set[int] = set()
    for one in whitelist:
        events = _events_of(one)
        if events is None:
            return None
        wanted |= events
    return frozenset(wanted) or None
