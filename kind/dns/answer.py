"""A DNS question and the zone → the answer. Pure: bytes in, bytes out.

Names outside the cluster are refused: the lab has no way out, and a quick REFUSED lets a resolver
go on where NXDOMAIN would be a lie about somebody else's name.
"""

from collections.abc import Callable
from ipaddress import IPv4Address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kind.dns.zone import Records, Zone

TTL_S = 5  # a service's backends change often and the way to us is short
UDP_BYTES = 1232  # the size that is not fragmented anywhere; larger answers go over TCP
MAX_ALIASES = 8
REVERSE_ZONES = ("in-addr.arpa.", "ip6.arpa.")


def answer(query: bytes, zone: Zone, over_tcp: bool) -> bytes | None:
    """The answer's bytes; ``None`` for what is not a question at all."""
    try:
        question = dns.message.from_wire(query)
    except (dns.exception.DNSException, ValueError):
        return None
    if question.flags & dns.flags.QR or len(question.question) != 1:
        return None
    reply = dns.message.make_response(question, recursion_available=True)
    asked = question.question[0]
    name = asked.name.to_text().lower()
    if asked.rdclass != dns.rdataclass.IN:
        reply.set_rcode(dns.rcode.REFUSED)
    else:
        _fill(reply, name, asked.rdtype, zone)
    limit = 65535 if over_tcp else max(512, min(question.payload or 512, UDP_BYTES))
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        for section in (reply.answer, reply.authority, reply.additional):
            section.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()


def _fill(reply: dns.message.Message, name: str, kind: dns.rdatatype.RdataType, zone: Zone) -> None:
    is_reverse = name.endswith(REVERSE_ZONES)
    if not zone.covers(name) and not (is_reverse and name in zone):
        reply.set_rcode(dns.rcode.NXDOMAIN if is_reverse else dns.rcode.REFUSED)
        return
    reply.flags |= dns.flags.AA
    for _ in range(MAX_ALIASES):
        records = zone.get(name)
        if records is None:
            if zone.covers(name):
                reply.set_rcode(dns.rcode.NXDOMAIN)
                _add_authority(reply, name, zone)
            return
        if not records.alias or kind == dns.rdatatype.CNAME:
            break
        _add(reply, name, dns.rdatatype.CNAME, [records.alias])
        name = records.alias.lower()
    else:
        return
    maker = _MAKERS.get(kind)
    values = maker(zone[name]) if maker and name in zone else []
    _add(reply, name, kind, values)
    if kind == dns.rdatatype.SRV:
        _add_targets(reply, zone[name], zone)
    if not reply.answer:
        _add_authority(reply, name, zone)


def _addresses(version: int) -> Callable[[Records], list[str]]:
    def texts(records: Records) -> list[str]:
        wanted = [a for a in records.addresses if isinstance(a, IPv4Address) == (version == 4)]
        return sorted(str(address) for address in wanted)

    return texts


def _srv(records: Records) -> list[str]:
    return sorted(f"{s.priority} {s.weight} {s.port} {s.target}" for s in records.services)


_MAKERS: dict[int, Callable[[Records], list[str]]] = {
    dns.rdatatype.A: _addresses(4),
    dns.rdatatype.AAAA: _addresses(6),
    dns.rdatatype.SRV: _srv,
    dns.rdatatype.PTR: lambda records: sorted(records.pointers),
    dns.rdatatype.CNAME: lambda records: [records.alias] if records.alias else [],
}


def _add(
    reply: dns.message.Message, name: str, kind: dns.rdatatype.RdataType, values: list[str]
) -> None:
    if values:
        reply.answer.append(dns.rrset.from_text_list(name, TTL_S, "IN", kind, values))


def _add_targets(reply: dns.message.Message, records: Records, zone: Zone) -> None:
    for target in sorted({item.target for item in records.services}):
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            values = _MAKERS[kind](zone[target]) if target in zone else []
            if values:
                rrset = dns.rrset.from_text_list(target, TTL_S, "IN", kind, values)
                reply.additional.append(rrset)


def _add_authority(reply: dns.message.Message, name: str, zone: Zone) -> None:
    domain = zone.domain_of(name) or zone.domain
    # The SOA's last number says how long "no such name" may be remembered.
    text = f"ns.dns.{zone.domain} hostmaster.{zone.domain} 1 7200 1800 86400 {TTL_S}"
    reply.authority.append(dns.rrset.from_text(domain, TTL_S, "IN", "SOA", text))
