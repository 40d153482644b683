"""The IPsec secret: what is a key, what is none, and which key each direction gets."""

import hashlib

import pytest

from encryption import ipsec_keys
from encryption.ipsec_keys import End, KeyFileError, agreed, derive, is_newer, parse_secret
from model.address import parse_address

KEY = "44434241343332312423222114131211f4f3f2f1"
AEAD = f"3+ rfc4106(gcm(aes)) {KEY} 128"
PAIR = f"4+ hmac(sha256) {'0b' * 32} cbc(aes) {'0c' * 16}"
ONE = End(parse_address("192.0.2.1"), "b6a4f3a8-0d5c-4a54-9d18-2f8c7f2f1a01")
TWO = End(parse_address("192.0.2.2"), "3f1e7c52-77aa-4f2e-8b66-aa1f6f0c9d02")


def test_both_forms_are_read() -> None:
    """AEAD and encryption with HMAC; with and without 0x; empty lines are nothing."""
    first, second = parse_secret(f"{AEAD}\n\n{PAIR.replace('0b0b', '0x0b0b', 1)}\n")
    assert (first.id, second.id) == (3, 4)
    assert first.material.encryption.key == bytes.fromhex(KEY)
    assert first.material.icv_bits == 128
    assert second.material.authentication is not None
    assert second.material.authentication.key == b"\x0b" * 32
    assert second.material.encryption.name == "cbc(aes)"


def test_overhead_follows_the_integrity_value() -> None:
    """77 bytes for 128 bits, 73 for 96, 93 for a HMAC of 32 bytes."""
    sizes = [
        parse_secret(line)[0].overhead_bytes for line in (AEAD, AEAD.replace("128", "96"), PAIR)
    ]
    assert sizes == [77, 73, 93]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("0+ rfc4106(gcm(aes)) 00 128", "1 to 15"),
        ("16+ rfc4106(gcm(aes)) 00 128", "1 to 15"),
        (AEAD.replace("+", ""), "without `\\+`"),
        (f"3+ rfc4106(gcm(aes)) {KEY[:-2]} 128", "20, 28 or 36 bytes"),
        (f"3+ rfc4106(gcm(aes)) {KEY} 256", "64, 96 or 128 bits"),
        (f"3+ rfc4106(gcm(aes)) {KEY[:-1]}x 128", "not hexadecimal"),
        (f"3+ gcm(aes) {KEY} 128", "unknown algorithm"),
        (PAIR.replace("sha256", "md5"), "unknown algorithm"),
        (PAIR.replace("cbc", "ecb"), "unknown algorithm"),
        (PAIR.replace("0b" * 32, "0b" * 8), "32 to 64 bytes"),
        (PAIR.replace("0c" * 16, "0c" * 15), "16, 24 or 32 bytes"),
        ("3+ rfc4106(gcm(aes))", "2 words"),
        (f"{AEAD}\n{AEAD}", "line 2 .* key ID 3 again"),
    ],
)
def test_what_is_no_key_is_told_without_it(text: str, says: str) -> None:
    """One message with line and remedy; no part of a key in it."""
    with pytest.raises(KeyFileError, match=says) as raised:
        parse_secret(text)
    assert KEY[:8] not in str(raised.value)
    assert "0b0b0b" not in str(raised.value)


def test_keys_are_in_no_representation() -> None:
    """Whatever logs such an object logs no key."""
    for key in parse_secret(f"{AEAD}\n{PAIR}"):
        for text in (repr(key), repr(derive(key, ONE, TWO))):
            assert KEY[:8] not in text.lower()
            assert "\\x0b" not in text


def test_derivation_is_the_one_of_the_reference() -> None:
    """SHA-256 over key, sender, receiver and both boot IDs, cut to the key's length."""
    key = parse_secret(AEAD)[0]
    text = bytes.fromhex(KEY) + bytes([192, 0, 2, 1, 192, 0, 2, 2])
    text += ONE.boot_id.encode() + TWO.boot_id.encode()
    assert derive(key, ONE, TWO).encryption.key == hashlib.sha256(text).digest()[:20]
    long = parse_secret(PAIR.replace("hmac(sha256) ", "hmac(sha512) " + "0a" * 32))[0]
    made = derive(long, ONE, TWO).authentication
    assert made is not None
    material = long.material.authentication
    assert material is not None
    assert made.key == hashlib.sha512(material.key + text[20:]).digest()


def test_no_two_senders_share_a_key() -> None:
    """Each direction of each pair, and each boot of a node, has a key of its own."""
    key = parse_secret(AEAD)[0]
    nodes = [End(parse_address(f"192.0.2.{n}"), f"{n:036d}") for n in range(1, 12)]
    nodes.append(End(nodes[0].address, f"{99:036d}"))
    made = {derive(key, a, b).encryption.key for a in nodes for b in nodes if a is not b}
    assert len(made) == len(nodes) * (len(nodes) - 1)


def test_ids_run_round() -> None:
    """1 comes after 15; two nodes agree on the older; 0 is no key."""
    assert is_newer(4, 3)
    assert is_newer(1, 15)
    assert not is_newer(15, 1)
    assert not is_newer(3, 3)
    assert agreed(4, 3) == agreed(3, 4) == 3
    assert agreed(1, 15) == agreed(15, 1) == 15
    assert agreed(0, 3) == agreed(3, 0) == 0


def test_a_boot_id_is_36_characters() -> None:
    """Only what can go into a key is a boot ID."""
    assert ipsec_keys.is_boot_id(ONE.boot_id)
    assert not ipsec_keys.is_boot_id("")
    assert not ipsec_keys.is_boot_id("é" * 36)


@pytest.mark.parametrize("line", [AEAD, PAIR, AEAD.replace("3+", "15+"), AEAD.replace("128", "96")])
def test_the_next_key_is_of_the_same_form(line: str) -> None:
    """Behind the current one, with the next ID (1 after 15) and new bytes in every key of it."""
    counts: list[int] = []

    def random(count: int) -> bytes:
        counts.append(count)
        return bytes([0xA0 + len(counts)]) * count

    old, current = "2+ rfc4106(gcm(aes)) " + "99" * 20 + " 128", parse_secret(line)[0]
    text = ipsec_keys.following(f"{old}\n{line}\n", random)
    kept, new = parse_secret(text)
    assert (kept, new.id) == (current, current.id % 15 + 1)
    assert new.overhead_bytes == current.overhead_bytes
    parts = [m.authentication for m in (new.material, current.material)]
    assert (parts[0] is None) == (parts[1] is None)
    made = [a.key for a in (new.material.encryption, new.material.authentication) if a]
    assert sorted(map(len, made)) == sorted(counts)
    assert len(set(made)) == len(made)
    assert all(set(key) <= {0xA1, 0xA2} for key in made)
    assert parse_secret(ipsec_keys.only_current(text)) == (new,)
