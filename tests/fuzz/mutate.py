"""Bytes that are almost right: what a broken or hostile writer may leave behind a key."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 31, 1 << 64, 10**400, -0.0, 1e308, "", "\0", "\ud800", "/", "::",
    "x" * 5000, "10.0.0.0/33", "::ffff:1.2.3.4", "fe80::1%eth0", "255.255.255.255",
    "١٢٣", [], {}, [[]], [{}], {"": {}},
)  # fmt: skip
TOKENS = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\u0000", b"\\ud800", b"null", b"1e999",
    b"\xff", b"\xef\xbb\xbf", b";", b"=", b"/", b"<nil>", b"NaN", b"[" * 2000, b'{"a":' * 1000,
)  # fmt: skip


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, insert."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(out))
        match rng.randrange(5):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randint(1, 8)]
            case 2:
                out[at:at] = rng.choice(TOKENS)
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 64)]
            case _:
                out[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(out)


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Keep it JSON: change names' case, and put junk where something else stood."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(data, rng)
    return json.dumps(_changed(value, rng, 0.15), ensure_ascii=rng.random() < 0.5).encode(
        errors="surrogatepass"
    )


def _changed(value: Any, rng: random.Random, odds: float) -> Any:
    if rng.random() < odds:
        return rng.choice(JUNK)
    if isinstance(value, list):
        out = [_changed(v, rng, odds) for v in value]
        return out * rng.choice((1, 1, 1, 1, 2, 20))
    if isinstance(value, dict):
        return {
            rng.choice((k, k, k, k.upper(), k.swapcase(), k + "x")): _changed(v, rng, odds)
            for k, v in value.items()
        }
    return value


Mutation = Callable[[bytes, random.Random], bytes]


def mutated(seeds: Sequence[bytes], rng: random.Random, ways: Sequence[Mutation]) -> bytes:
    """One candidate."""
    data = rng.choice(seeds)
    if rng.random() < 0.1:
        other = rng.choice(seeds)
        data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
    return rng.choice(ways)(data, rng)
