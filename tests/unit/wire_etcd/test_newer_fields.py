"""What newer writers add, and what other writers do otherwise: read as it is meant."""

from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName, SliceExport, identity_range, identity_shift
from model.labels import Label
from model.service import L4, BackendState, Protocol, ServiceName, Zone
from model.shared_slice import SliceName
from wire.etcd import (
    cluster_config_v1,
    endpointslice_v1,
    freshness_v1,
    identity_v1,
    ip_v1,
    keys,
    node_v1,
    service_v1,
)
from wire.etcd.errors import RemoteWireError

GOLDEN = Path(__file__).parents[2] / "golden"
BERLIN, SEVEN = ClusterName("berlin"), ClusterId(7)
RANGE = identity_range(SEVEN)


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_a_slice_is_read_as_published() -> None:
    """Addresses with state, host name, node and zone; ports; the service by its label."""
    data = golden("endpointslice_v1.zst")
    read = endpointslice_v1.decode("web/shop-x7k2p", data, BERLIN, SEVEN, "k")
    assert (read.name, read.service) == (
        SliceName("web", "shop-x7k2p"),
        ServiceName("web", "shop"),
    )
    assert read.ports == {"http": L4(8080, Protocol.TCP)}
    first, ending, broken = read.endpoints
    assert (first.address, first.state) == (parse_address("10.11.3.207"), BackendState.ACTIVE)
    assert (first.hostname, first.node) == ("shop-0", "b-worker-1")
    assert first.zone == Zone("zone-a", ("zone-a",))
    assert ending.state is BackendState.TERMINATING
    assert broken.state is BackendState.QUARANTINED


def test_what_we_compress_others_read() -> None:
    """The vector's fields, without those that we do not know, are what we write of it."""
    data = golden("endpointslice_v1.zst")
    read = endpointslice_v1.decode("web/shop-x7k2p", data, BERLIN, SEVEN, "k")
    ours = endpointslice_v1.encode(read)
    again = endpointslice_v1.decode("web/shop-x7k2p", ours, BERLIN, SEVEN, "k")
    assert (again, again.ports, again.labels) == (read, read.ports, read.labels)
    plain = zstandard.ZstdDecompressor().decompress(ours)
    assert b"\x0a\x06berlin\x10\x07\x1a\x03web" in plain


def _pack(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


PLAIN = golden("endpointslice_v1.pb")
REFUSED = {
    "nothing": (b"", "the value is of cluster ''"),
    "not compressed": (PLAIN, "does not decompress"),
    "cut": (golden("endpointslice_v1.zst")[:-9], "does not|cluster"),
    "no message": (_pack(b"\xff\xff\xff"), "does not decode"),
    "not UTF-8": (_pack(PLAIN.replace(b"shop-0", b"sh\xffp-0")), "does not decode"),
    "other cluster": (_pack(PLAIN.replace(b"berlin", b"london")), "is of cluster 'london'"),
    "other ID": (
        _pack(PLAIN.replace(b"\x10\x07", b"\x10\x08", 1)),
        "cluster ID 8, announced was 7",
    ),
    "other name": (_pack(PLAIN.replace(b"x7k2p", b"aaaaa")), "is of slice web/shop-aaaaa"),
    "host names": (_pack(PLAIN.replace(b"IPv4", b"FQDN")), "address type 'FQDN' is none of"),
    "other family": (_pack(PLAIN.replace(b"IPv4", b"IPv6")), "10.11.3.207 is no IPv6 address"),
    "no address": (_pack(PLAIN.replace(b"10.11.3.207", b"10.11.3.xyz")), "is not an IP address"),
    "protocol": (_pack(PLAIN.replace(b"TCP", b"XYZ")), "protocol 'XYZ' is not known"),
    "a bomb": (_pack(b"\0" * (3 << 20)), "more than 2097152 bytes when decompressed"),
    "several bombs": (_pack(b"\0" * (3 << 19)) * 2, "more than 2097152 bytes when decompressed"),
    "a window": (b"\x28\xb5\x2f\xfd\x00\xf8" + b"\0" * 20, "does not decompress"),
    "too many": (_pack(PLAIN + b"\x42\x03\x0a\x01x" * 1000), "more than 1000 addresses"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_slice_that_breaks_a_rule_is_refused_whole(case: str) -> None:
    """One error, with the key; what a frame says about its own size is not believed."""
    data, why = REFUSED[case]
    with pytest.raises(RemoteWireError, match=why) as caught:
        endpointslice_v1.decode("web/shop-x7k2p", data, BERLIN, SEVEN, "the/key")
    assert caught.value.where == "the/key"


def test_slices_have_their_keys_and_canary() -> None:
    """In state and cache, as the other types with a cluster's name in the key."""
    assert keys.resource_prefix(keys.ENDPOINT_SLICES, "c1") == "cilium/state/endpointslices/v1/c1/"
    assert (
        keys.resource_prefix(keys.ENDPOINT_SLICES, "c1", True)
        == "cilium/cache/endpointslices/v1/c1/"
    )
    canary = "cilium/synced/c1/cilium/state/endpointslices/v1"
    assert keys.canary("c1", keys.ENDPOINT_SLICES) == canary
    assert keys.canary_resource(canary, "c1") == keys.ENDPOINT_SLICES
    for bad in ("shop", "web/", "/shop", "web/a/b"):
        with pytest.raises(RemoteWireError):
            endpointslice_v1.decode_name(bad, "k")


def test_an_announcement_of_slices_is_written_as_published() -> None:
    """All capabilities; an unknown mode refuses it, for we might read the wrong type."""
    data = golden("cluster_config_v1_slices.json")
    config = cluster_config_v1.decode(data, "k")
    assert (config.id, config.capabilities.max_connected_clusters) == (500, 511)
    assert config.capabilities.slices is SliceExport.BOTH
    assert cluster_config_v1.encode(config) == data
    only = data.replace(b"services-and-endpointslices", b"endpointslices-only")
    assert cluster_config_v1.decode(only, "k").capabilities.slices is SliceExport.ONLY
    with pytest.raises(RemoteWireError, match="endpointSlicesExportMode 'some' is none of"):
        cluster_config_v1.decode(data.replace(b"services-and-endpointslices", b"some"), "k")


@pytest.mark.parametrize("number", [-1, 1 << 32, 10**30])
def test_a_number_outside_its_field_is_refused(number: int) -> None:
    """The field has 32 bits and no sign."""
    with pytest.raises(RemoteWireError, match=r"is outside 0\.\.4294967295"):
        cluster_config_v1.decode(b'{"id":%d}' % number, "k")


def test_a_silent_announcement_means_255_clusters() -> None:
    """Writers that leave the field out are older than the choice."""
    read = cluster_config_v1.decode(b'{"id":3,"capabilities":{"novelty":[1]}}', "k").capabilities
    assert (read.max_connected_clusters, read.slices) == (255, SliceExport.NONE)
    assert not read.synced_canaries
    assert read.service_exports is None


def test_zones_are_written_as_published_and_left_out_when_there_are_none() -> None:
    """The field of newer writers."""
    data = golden("service_v1_zones.json")
    read = service_v1.decode("web/shop", data, BERLIN, SEVEN, "k")
    assert read.zones == {parse_address("10.11.3.207"): Zone("a", ("a",))}
    assert service_v1.encode(read) == data
    bare = service_v1.decode("web/shop", golden("service_v1.json"), BERLIN, SEVEN, "k")
    assert b"zones" not in service_v1.encode(bare)
    shouted = data.replace(b'"forZones"', b'"FORZONES"').replace(b'"zones"', b'"Zones"')
    assert service_v1.decode("web/shop", shouted, BERLIN, SEVEN, "k").zones == read.zones


def test_prefixes_as_text() -> None:
    """The form of writers to come; what is no address with a length is refused."""
    data = golden("node_v1_text.json")
    read = node_v1.decode("b-worker-1", data, BERLIN, SEVEN, "k")
    assert read.pod_cidrs == (parse_prefix("10.11.3.0/24"),)
    assert read == node_v1.decode("b-worker-1", golden("node_v1.json"), BERLIN, SEVEN, "k")
    for bad in ("10.11.3.0", "10.11.3.0/255.255.255.0", "10.11.3.9/24", "10.11.3.0/33", "x/24", ""):
        with pytest.raises(RemoteWireError, match="is not a prefix"):
            node_v1.decode(
                "b-worker-1", data.replace(b"10.11.3.0/24", bad.encode()), BERLIN, SEVEN, "k"
            )


def test_null_is_as_good_as_absent() -> None:
    """Anywhere a field may be left out; what must be there is still missed."""
    node = golden("node_v1.json").replace(b'"IPv6HealthIP":""', b'"IPv6HealthIP":null')
    node = node.replace(b'"EncryptionKey":0', b'"EncryptionKey":null')
    assert node_v1.decode("b-worker-1", node, BERLIN, SEVEN, "k").encryption_key == 0
    with pytest.raises(RemoteWireError, match="does not decode"):
        node_v1.decode("b-worker-1", b'{"Name":null,"Cluster":"berlin"}', BERLIN, SEVEN, "k")


def test_named_ports_of_other_writers_do_no_harm() -> None:
    """Writers that keep their state in etcd fill a field that we have no use for."""
    data = golden("ip_v1.json")[:-1]
    data += b',"NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}'
    assert ip_v1.decode("10.11.3.207", data, RANGE, "k")[1].identity == 491777


def test_a_source_ends_at_the_first_colon() -> None:
    """Also where the value holds one; text without a source is accepted."""
    labels = identity_v1.parse_labels("k8s:a=b:c=d;cidr:10.0.0.0/8=;plain=1;")
    assert set(labels) == {
        Label("a", "b:c=d", "k8s"),
        Label("10.0.0.0/8", "", "cidr"),
        Label("plain", "1", "unspec"),
    }


def test_freshness_is_written_as_it_is_kept() -> None:
    """Our own row; fields that say nothing are left out."""
    data = golden("freshness_v1.json")
    assert freshness_v1.encode(freshness_v1.decode(data, "k")) == data


@pytest.mark.parametrize(("most", "shift"), [(255, 16), (511, 15)])
def test_a_mesh_of_511_clusters_cuts_identities_otherwise(most: int, shift: int) -> None:
    """24 bits: 8 and 16, or 9 and 15; every identity belongs to exactly one cluster."""
    assert identity_shift(most) == shift
    ranges = [identity_range(ClusterId(n), most) for n in range(1, most + 1)]
    assert ranges[-1].last == (1 << 24) - 1
    assert all(a.last + 1 == b.first for a, b in pairwise(ranges))
    assert all(r.last - r.first == (1 << shift) - 1 for r in ranges)
