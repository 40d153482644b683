"""Python's side of the map layouts is what the compiler says."""

import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

from datapath import encoding as e
from model.address import pack
from model.cluster import ClusterId
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.service import BackendState, Frontend, Protocol
from tests.support.bpf import Machine
from wire.bpf import layouts as w

ROOT = Path(__file__).parents[2]
SHAPES = {
    "ist_endpoints": (16, w.ENDPOINT_VALUE.size),
    "ist_interfaces": (4, w.INTERFACE_VALUE.size),
    "ist_ipcache": (16, w.IPCACHE_VALUE.size),
    "ist_ipcache_lpm": (w.IPCACHE_PREFIX_KEY.size, w.IPCACHE_VALUE.size),
    "ist_ct": (w.CONNTRACK_KEY.size, w.CONNTRACK_VALUE.size),
    "ist_services": (w.SERVICE_KEY.size, w.SERVICE_VALUE.size),
    "ist_backends": (4, w.BACKEND_VALUE.size),
    "ist_revnat": (4, w.REVNAT_VALUE.size),
    "ist_affinity": (w.AFFINITY_KEY.size, w.AFFINITY_VALUE.size),
    "ist_aff_match": (w.AFFINITY_MATCH_KEY.size, 1),
}


def test_layouts_are_generated_from_the_headers() -> None:
    """`wire/bpf/layouts.py` is what tools/gen_layouts.py makes of bpf/lib/abi today."""
    subprocess.run([sys.executable, ROOT / "tools/gen_layouts.py", "--check"], check=True)


def test_maps_have_the_layouts(loaded: Machine) -> None:
    """The loaded maps' keys and values have the generated sizes."""
    found = {n: (t.key_size, t.value_size) for n, t in loaded.tables.items() if n in SHAPES}
    assert found == SHAPES


def test_rows_of_the_adapter_have_the_layouts() -> None:
    """What datapath/ writes reads back field by field with the generated classes."""
    here, other = ip_address("10.1.0.10"), ip_address("fd00::9")
    endpoint = e.EndpointRow(1, 2, 3, 1, b"abcdef", b"ghijkl")
    assert w.EndpointValue.parse(endpoint.pack()) == tuple(endpoint)
    interface = e.InterfaceRow(bytes(range(16)), bytes(16), 5, 6, b"abcdef", b"ghijkl")
    assert w.InterfaceValue.parse(interface.pack()) == tuple(interface)
    service = e.ServiceRow(1, 2, 3, 4, 3)
    assert w.ServiceValue.parse(service.pack()) == tuple(service)
    frontend = Frontend(here, 8080, Protocol.UDP)
    assert w.ServiceKey.parse(e.service_key(frontend, 7)) == (pack(here), 8080, 7, 17, 0)
    backend = e.BackendRow(other, 443, Protocol.TCP, BackendState.TERMINATING, ClusterId(9))
    assert w.BackendValue.parse(backend.pack()) == (pack(other), 443, 6, 1, 9)
    assert w.RevnatValue.parse(e.revnat_value(frontend)) == (pack(here), 8080)
    assert w.AffinityMatchKey.parse(e.affinity_match_key(4, 5)) == (4, 5)
    entry = IpcacheEntry(NumericIdentity(70000), here, 3, 2)
    assert w.IpcacheValue.parse(e.ipcache_value(entry)) == (pack(here), 70000, 2, 3, 0)
    prefix = ip_network("10.0.0.0/8")
    row = w.IpcachePrefixKey.parse(e.ipcache_prefix_key(prefix))
    assert row == (104, pack(prefix.network_address))


def test_rows_the_adapter_reads_have_the_layouts() -> None:
    """What the programs write is read by datapath/ as the generated classes say."""
    here, other = ip_address("10.1.0.10"), ip_address("10.1.0.20")
    key = w.ConntrackKey(pack(here), pack(other), 40000, 80, 6, 1)
    value = w.ConntrackValue(1, 2, 3, 4, 5, 6, 7, 8, 9)
    read = e.parse_conntrack(key.pack(), value.pack())
    assert (read.source, read.destination) == (here, other)
    assert (read.source_port, read.destination_port) == (40000, 80)
    assert (read.protocol, read.scope) == (6, 1)
    assert (read.packets, read.bytes, read.expires_s, read.source_identity) == (1, 2, 3, 4)
    assert (read.backend_id, read.revnat_id, read.flags) == (5, 6, 7)
    assert (read.tx_tcp_flags, read.rx_tcp_flags) == (8, 9)
    assert tuple(e.parse_metrics_key(w.MetricsKey(132, 2, 300, 4).pack())) == (132, 2, 300, 4)
