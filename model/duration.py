"""Durations as settings write them: ``15m0s``, ``1h30m``, ``250ms``. Pure."""

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def parse_duration_s(text: str) -> float:
    """Seconds. Raises ``ValueError`` naming the text and the remedy."""
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'duration "{text}" is not valid: write it like 30s, 15m or 1h30m')
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
