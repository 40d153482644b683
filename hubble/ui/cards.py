"""Services and links of the UI, put together from flows as they come. Pure.

A card is an identity; what is outside of clusters has one as sender and one as receiver, by name
where it was looked up. Only what is new is told: a card when it or a workload of it appears, a link
when it appears, or its verdict, authentication or encryption change, so the newest counts.
"""

from collections.abc import Iterable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from hubble.service_map import ANSWERS, app_name
from wire.hubble import flow_pb2 as f
from wire.hubble import ui_pb2 as ui

KEPT_MAX: Final = 1 << 15  # cards, and links; those that come later are not told
_WORLD: Final = frozenset(("reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"))
_PROTOCOLS: Final = {
    "TCP": ui.IPProtocol.TCP,
    "UDP": ui.IPProtocol.UDP,
    "ICMPv4": ui.IPProtocol.ICMP_V4,
    "ICMPv6": ui.IPProtocol.ICMP_V6,
}


def is_shown(flow: f.Flow) -> bool:
    """It has two ends and a protocol: the UI can draw it."""
    has_ends = flow.HasField("source") and flow.HasField("destination")
    return has_ends and flow.l4.WhichOneof("protocol") is not None


def is_answer(flow: f.Flow) -> bool:
    """It goes back to who has asked: drawn as it flies, its link would be the wrong way round."""
    return flow.is_reply.value or flow.sock_xlate_point in ANSWERS


def card_id(endpoint: f.Endpoint, names: Iterable[str], side: str) -> str:
    """``side``: sender or receiver."""
    if endpoint.identity and _WORLD.isdisjoint(endpoint.labels):
        return str(endpoint.identity)
    if endpoint.workloads:
        return f"{endpoint.workloads[0].kind}/{endpoint.workloads[0].name}"
    return f"{next(iter(names), 'world')}-{side}"


class Cards:
    """What one viewer has been told."""

    def __init__(self) -> None:
        self._workloads: dict[str, set[tuple[str, str]]] = {}  # of cards, by ID
        self._links: dict[str, tuple[int, int, bool]] = {}

    def take(
        self, flows: Iterable[f.Flow]
    ) -> tuple[list[ui.ServiceState], list[ui.ServiceLinkState]]:
        """What these flows change."""
        cards: dict[str, ui.ServiceState] = {}
        links: dict[str, ui.ServiceLinkState] = {}
        for flow in flows:
            ids = (
                self._card(cards, flow.source, flow.source_names, "sender", flow.time),
                self._card(cards, flow.destination, flow.destination_names, "receiver", flow.time),
            )
            if not is_answer(flow):
                self._link(links, flow, *ids)
        return list(cards.values()), list(links.values())

    def _card(
        self,
        told: dict[str, ui.ServiceState],
        endpoint: f.Endpoint,
        names: Iterable[str],
        side: str,
        now: Timestamp,
    ) -> str:
        found = card_id(endpoint, names, side)
        workloads = {(one.kind, one.name) for one in endpoint.workloads}
        known = self._workloads.get(found)
        if known is None:
            if len(self._workloads) >= KEPT_MAX:
                return found
            change = ui.StateChange.ADDED
            known = self._workloads[found] = workloads
        elif workloads <= known:
            return found
        else:
            change = told[found].type if found in told else ui.StateChange.MODIFIED
            known |= workloads
        state = told[found] = ui.ServiceState(type=change)
        card = state.service
        card.id, card.namespace, card.identity = found, endpoint.namespace, endpoint.identity
        card.name = app_name(endpoint.labels) or found
        card.labels.extend(endpoint.labels)
        card.dns_names.extend(names)
        card.creation_timestamp.CopyFrom(now)
        for kind, name in sorted(known):
            card.workloads.add(kind=kind, name=name)
        return found

    def _link(
        self, told: dict[str, ui.ServiceLinkState], flow: f.Flow, source: str, destination: str
    ) -> None:
        layer = flow.l4.WhichOneof("protocol") or ""
        protocol = _PROTOCOLS.get(layer, ui.IPProtocol.UNKNOWN_IP_PROTOCOL)
        port = 0
        if layer in ("TCP", "UDP"):
            port = getattr(flow.l4, layer).destination_port
        found = f"{source} {ui.IPProtocol.Name(protocol)} {destination}:{port}"
        newest = flow.verdict, flow.auth_type, flow.IP.encrypted
        known = self._links.get(found)
        if known == newest or (known is None and len(self._links) >= KEPT_MAX):
            return
        self._links[found] = newest
        change = ui.StateChange.ADDED if known is None else ui.StateChange.MODIFIED
        state = told[found] = ui.ServiceLinkState(
            type=told[found].type if found in told else change
        )
        link = state.service_link
        link.id, link.source_id, link.destination_id = found, source, destination
        link.destination_port, link.ip_protocol = port, protocol
        link.verdict, link.auth_type, link.is_encrypted = newest
