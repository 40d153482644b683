"""A rehearsal, from outside its enclosure. Adapter."""

import os
import tempfile

import msgspec

from kind.simulate.enclosure import enclosed
from kind.simulate.rehearsal import Request
from kind.simulate.report import Report


def rehearse(request: Request) -> tuple[int, Report | None]:
    """Exit code and report; no report when it was ended before its time."""
    text = msgspec.json.encode(request).decode()
    with tempfile.TemporaryFile() as output:
        code = enclosed("kind.simulate", [text], stdout=output.fileno()).wait()
        output.seek(0, os.SEEK_SET)
        data = output.read()
    if not data:
        return code or 1, None
    return code, msgspec.json.decode(data, type=Report)
