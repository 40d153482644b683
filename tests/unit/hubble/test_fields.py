"""Every field of a flow is filled by some record, or it is said here why it cannot be."""

from hubble.access_log import AccessLog
from hubble.decode import Decoder
from hubble.dns_names import DnsNames
from hubble.ring import Entry
from tests.support import access_log as proxies
from tests.support.hubble_records import (
    AT,
    CLIENT,
    SERVER,
    TRANSLATION,
    VIP,
    drop,
    some_names,
    tcp,
    trace,
    verdict,
)
from wire.bpf import layouts as w
from wire.hubble import flow_pb2 as f

NOT_OURS = {
    "debug_capture_point": "no program sends captures for debugging",
    "proxy_port": "no program redirects to a proxy",
    "auth_type": "there is no mutual authentication",
    "tunnel": "packets are captured as they are inside of the tunnel",
    "ip_trace_id": "no IP option is looked for",
    "cgroup_id": "translation happens to packets, whose cgroup is not known",
    "aggregate": "filled by an export that counts flows together: test_export.py",
    "extensions": "nobody's",
}


def packed(address: str) -> bytes:
    return bytes(map(int, address.split("."))) + bytes(12)


def records() -> list[bytes]:
    """One of each kind, with all that it can tell."""
    nat = packed("10.9.9.9")
    client = packed(CLIENT)
    asked = w.TranslationEvent(
        TRANSLATION, 1, packed(VIP), 80, 4711, 0, 1, 0, client, 40000, 11, 70001
    )
    answered = w.TranslationEvent(
        TRANSLATION, 4, packed(VIP), 80, 4711, 0, 1, 0, client, 40000, 11, 70001
    )
    return [
        trace(tcp(), reason=0x80, original=nat),
        trace(tcp(SERVER, CLIENT, "SA"), reason=2, endpoint=11),
        drop(tcp()),
        *(verdict(tcp(), result, ingress) for result in (0, -181) for ingress in (True, False)),
        asked.pack(),
        answered.pack(),
    ]


def test_every_field_is_filled_or_has_a_reason() -> None:
    """By records of the programs and of proxies."""
    names, dns = some_names(), DnsNames()
    told = AccessLog(names, dns)
    decoder = Decoder(names, bytes(8), dns, f.Emitter(name="isthmus", version="1"))
    decoder.name_interfaces({7: "lxc22"})
    headers = {"Traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]}
    get = {"Method": "GET", "URL": "http://web/", "Protocol": "HTTP/1.1", "Headers": headers}
    looked_up = [("web.shop.", SERVER, CLIENT), ("client.shop.", CLIENT, SERVER)]
    made = [proxies.dns_answer(name, address, asker=who) for name, address, who in looked_up]
    made.append(proxies.record(CLIENT, SERVER, HTTP=get))
    taken = [told.take(proxies.message(one), AT) for one in made]
    everything = [*(one for one in taken if one is not None), *records()]
    filled: set[str] = set()
    for number, record in enumerate(everything, 1):
        flow = decoder.decode(Entry(number, AT, record))
        assert isinstance(flow, f.Flow)
        filled |= {field.name for field, _ in flow.ListFields()}
    known = {field.name for field in f.Flow.DESCRIPTOR.fields}
    assert known - filled == set(NOT_OURS)
