"""The YAML that says how to reach a store."""

from pathlib import Path

import pytest

from kvstore.config import (
    CONFIG_LIMIT_BYTES,
    Endpoint,
    StoreConfig,
    StoreConfigError,
    load_store_config,
    parse_store_config,
)

GOOD = b"""
endpoints:
- https://paris.mesh.cilium.io:2379
- https://192.0.2.9:32379
trusted-ca-file: /certs/ca.crt
key-file: /certs/tls.key
cert-file: /certs/tls.crt
something-of-another-reader: {a: 1}
cilium-host-aliases:
- hostname: paris.mesh.cilium.io
  ips: ["192.0.2.40", "fd00::41"]
"""


def test_aliases_stand_for_addresses() -> None:
    """Each alias is tried at each of its addresses and keeps its name for the certificate."""
    config = parse_store_config(GOOD, "paris")
    name = "paris.mesh.cilium.io"
    assert config.targets() == (
        Endpoint("192.0.2.40", 2379, True, name),
        Endpoint("fd00::41", 2379, True, name),
        Endpoint("192.0.2.9", 32379, True, "192.0.2.9"),
    )
    assert [t.authority for t in config.targets()][:2] == ["192.0.2.40:2379", "[fd00::41]:2379"]
    assert (config.ca_file, config.cert_file, config.key_file) == (
        "/certs/ca.crt",
        "/certs/tls.crt",
        "/certs/tls.key",
    )


def test_plain_store_needs_no_files() -> None:
    """Without TLS the endpoint is enough."""
    assert parse_store_config(b"endpoints: ['http://127.0.0.1:2379']", "x") == StoreConfig(
        ("http://127.0.0.1:2379",)
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"endpoints: []", "no endpoints"),
        (b"{", "not a store's configuration"),
        (b"endpoints: 5", "not a store's configuration"),
        (b"\xff\xfe", "not a store's configuration"),
        (b"endpoints: ['paris:2379']", "'paris:2379' is not http"),
        (b"endpoints: ['https://paris:port']", "is not http"),
        (b"endpoints: ['https://paris:1']", "needs trusted-ca-file"),
        (
            b"endpoints: ['http://a:1']\ncilium-host-aliases: [{hostname: '', ips: ['1.1.1.1']}]",
            "must have a hostname",
        ),
        (
            b"endpoints: ['http://a:1']\ncilium-host-aliases: [{hostname: a, ips: []}]",
            "at least one IP",
        ),
        (
            b"endpoints: ['http://a:1']\n"
            b"cilium-host-aliases: [{hostname: a, ips: [b]}, {hostname: a, ips: [c]}]",
            "of its own",
        ),
        (b"#" * (CONFIG_LIMIT_BYTES + 1), "larger than"),
    ],
)
def test_a_bad_file_is_named(text: bytes, says: str) -> None:
    """One sentence with the file and what is wrong."""
    with pytest.raises(StoreConfigError, match=r"^/etc/paris: ") as caught:
        parse_store_config(text, "/etc/paris")
    assert says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(StoreConfigError, match="paris: cannot be read"):
        load_store_config(tmp_path / "paris")
