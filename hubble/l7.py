"""A proxy's record as a flow: layers 3, 4 and 7 and the summary. Pure."""

from hubble.names import packed
from hubble.packet import SCTP, TCP, UDP, Addresses
from hubble.ring import RECORD_ACCESS_LOG
from wire import access_log as wire
from wire.hubble import flow_pb2 as f

_TYPES = {"Request": f.REQUEST, "Response": f.RESPONSE, "Sample": f.SAMPLE}
_VERDICTS = {
    "Forwarded": f.FORWARDED,
    "Denied": f.DROPPED,
    "Error": f.ERROR,
    "Redirected": f.REDIRECTED,
}
_DNS_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT",
    17: "RP", 18: "AFSDB", 24: "SIG", 25: "KEY", 28: "AAAA", 29: "LOC", 33: "SRV",
    35: "NAPTR", 36: "KX", 37: "CERT", 39: "DNAME", 41: "OPT", 42: "APL", 43: "DS",
    44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID",
    50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA", 55: "HIP", 59: "CDS",
    60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", 64: "SVCB", 65: "HTTPS",
    99: "SPF", 108: "EUI48", 109: "EUI64", 249: "TKEY", 250: "TSIG", 251: "IXFR",
    252: "AXFR", 255: "ANY", 256: "URI", 257: "CAA", 32768: "TA", 32769: "DLV",
}  # fmt: skip
DNS_ERRORS = {
    1: "Format Error",
    2: "Server Failure",
    3: "Non-Existent Domain",
    4: "Not Implemented",
    5: "Query Refused",
    6: "Name Exists when it should not",
    7: "RR Set Exists when it should not",
    8: "RR Set that should exist does not",
    9: "Server Not Authoritative for zone",
    10: "Name not contained in zone",
    11: "Unknown",
    16: "Bad OPT Version",
    17: "Key not recognized",
    18: "Signature out of time window",
    19: "Bad TKEY Mode",
    20: "Duplicate key name",
    21: "Algorithm not supported",
    22: "Bad Truncation",
    23: "Bad Cookie",
}


def fill(flow: f.Flow, record: wire.Record) -> tuple[Addresses, tuple[int, int]]:
    """All but names and what every flow has; returns addresses, and the ends' identities."""
    flow.Type = f.L7
    flow.event_type.type = RECORD_ACCESS_LOG
    flow.verdict = _VERDICTS[record.verdict]
    is_answer = record.type == "Response"
    flow.is_reply.value = flow.reply = is_answer
    is_ingress = record.observation_point == "Ingress"
    flow.traffic_direction = f.INGRESS if is_ingress else f.EGRESS
    if record.trace_id:
        flow.trace_context.parent.trace_id = record.trace_id
    flow.l7.type = _TYPES[record.type]
    flow.l7.latency_ns = record.latency_ns
    if record.dns is not None:
        _dns(flow, record.dns, is_answer)
    elif record.http is not None:
        _http(flow, record.http, is_answer)
    elif record.kafka is not None:
        _kafka(flow, record.kafka, is_answer)
    elif record.l7 is not None:
        fields = " ".join(f"{key}:{value}" for key, value in sorted(record.l7.fields.items()))
        flow.Summary = f"{record.l7.proto} Fields: map[{fields}]"
    return _layers(flow, record)


def _layers(flow: f.Flow, record: wire.Record) -> tuple[Addresses, tuple[int, int]]:
    source, destination = record.source_endpoint, record.destination_endpoint
    flow.IP.source, flow.IP.destination = source.address, destination.address
    flow.IP.ipVersion = f.IPv4 if source.ipv4 else f.IPv6
    protocol = record.transport_protocol
    if protocol in (TCP, UDP, SCTP):
        l4 = flow.l4
        layer = l4.TCP if protocol == TCP else l4.UDP if protocol == UDP else l4.SCTP
        layer.source_port, layer.destination_port = source.port, destination.port
    found = Addresses(
        packed(source.address), packed(destination.address), protocol, source.port, destination.port
    )
    return found, (source.identity, destination.identity)


def _dns(flow: f.Flow, record: wire.Dns, is_answer: bool) -> None:
    dns = flow.l7.dns
    dns.query, dns.observation_source = record.query, record.observation_source
    dns.qtypes.extend(_DNS_TYPES.get(number, "Unknown") for number in record.qtypes)
    types = ",".join(dns.qtypes)
    if not is_answer:
        flow.Summary = f"DNS Query {record.query} {types}"
        return
    dns.ips.extend(record.ips)
    dns.cnames.extend(record.cnames)
    dns.ttl, dns.rcode = record.ttl, record.rcode
    dns.rrtypes.extend(_DNS_TYPES.get(number, "Unknown") for number in record.answer_types)
    told = []
    if record.rcode:
        told.append(f"RCode: {DNS_ERRORS.get(record.rcode, 'Unknown')}")
    elif record.ips:
        told.append(f'"{",".join(record.ips)}"')
    if record.cnames:
        told.append(f'CNAMEs: "{",".join(record.cnames)}"')
    by = "Proxy" if record.observation_source == "proxy" else "Query"
    flow.Summary = f"DNS Answer {' '.join(told)} TTL: {record.ttl} ({by} {record.query} {types})"


def _http(flow: f.Flow, record: wire.Http, is_answer: bool) -> None:
    http = flow.l7.http
    http.method, http.url, http.protocol = record.method, record.url, record.protocol
    for key, values in sorted(record.headers.items()):
        for value in values:
            http.headers.add(key=key, value=value)
    if is_answer:
        http.code = record.code
        took_ms = flow.l7.latency_ns // 10**6
        asked = f"({record.method} {record.url})"
        flow.Summary = f"{record.protocol} {record.code} {took_ms}ms {asked}"
    else:
        flow.Summary = f"{record.protocol} {record.method} {record.url}"


def _kafka(flow: f.Flow, record: wire.Kafka, is_answer: bool) -> None:
    kafka = flow.l7.kafka
    kafka.api_version, kafka.api_key = record.api_version, record.api_key
    kafka.correlation_id, kafka.topic = record.correlation_id, record.topic
    about = f"{record.api_key} correlation id {record.correlation_id} topic '{record.topic}'"
    if is_answer:
        kafka.error_code = record.error_code
        flow.Summary = f"Kafka response {about} return code {record.error_code}"
    else:
        flow.Summary = f"Kafka request {about}"
