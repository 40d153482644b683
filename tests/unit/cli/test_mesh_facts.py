"""How a remote cluster is written into the Secret, and what is read back from it."""

import base64
import json

import pytest

from cli import mesh_facts
from kube import connections
from kvstore.config import parse_store_config
from tests.unit.cli.test_mesh_checks import facts


def test_agents_understand_what_is_written() -> None:
    """The agent's own reader finds the endpoint, its address, and the certificates."""
    remote = facts("paris", 3, addresses=("192.0.2.3", "2001:db8::3"), port=32379)
    config = parse_store_config(mesh_facts.endpoint_config(remote), "paris")
    assert config.endpoints == ("https://paris.mesh.cilium.io:32379",)
    assert config.host_aliases == {"paris.mesh.cilium.io": ("192.0.2.3", "2001:db8::3")}
    assert {config.ca_file, config.cert_file, config.key_file} == {
        f"/var/lib/cilium/clustermesh/common-etcd-client{end}"
        for end in ("-ca.crt", ".crt", ".key")
    }


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("198.51.100.7:2379", "198.51.100.7", 2379), ("[2001:db8::1]:32379", "2001:db8::1", 32379)],
)
def test_named_endpoint(text: str, address: str, port: int) -> None:
    """A named endpoint stands for what was found."""
    found = mesh_facts.at(facts("paris", 3), text, "--source-endpoint")
    assert (found.addresses, found.port) == ((address,), port)


def test_no_named_endpoint() -> None:
    """Without one the cluster stays as it was read."""
    assert mesh_facts.at(facts("paris", 3), "", "--source-endpoint") == facts("paris", 3)


@pytest.mark.parametrize(
    "text", ["198.51.100.7", "host.example:1", "198.51.100.7:x", "[::1]:70000"]
)
def test_bad_endpoint(text: str) -> None:
    """What is no IP:PORT is told with the option's name."""
    with pytest.raises(ValueError, match=r"--source-endpoint .* is not IP:PORT"):
        mesh_facts.at(facts("paris", 3), text, "--source-endpoint")


def test_connected_clusters_are_read_back() -> None:
    """Names with their recorded numbers; keys that are certificates of others do not count."""
    config = base64.b64encode(mesh_facts.endpoint_config(facts("paris", 3))).decode()
    secret = {
        "metadata": {"annotations": {mesh_facts.IDS_ANNOTATION: json.dumps({"paris": 3})}},
        "data": {"paris": config, "oslo": config, "oslo.etcd-client.crt": "AAAA"},
    }
    assert mesh_facts.connections(secret) == {"oslo": 0, "paris": 3}
    assert mesh_facts.connections(None) == {}


def test_the_time_for_stale_data_stays_unless_another_is_given() -> None:
    """In the file that agents read; what they make of it is the seconds."""
    plain = mesh_facts.endpoint_config(facts("paris", 3))
    assert parse_store_config(connections.with_ttl(plain, b""), "paris").cache_ttl_s is None
    first = connections.with_ttl(plain, b"", "10m")
    assert parse_store_config(first, "paris").cache_ttl_s == 600
    assert connections.with_ttl(plain, first) == first
    assert parse_store_config(connections.with_ttl(plain, first, "0s"), "paris").cache_ttl_s == 0
