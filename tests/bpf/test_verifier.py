"""What the verifier has to do for each program is a fact that is written down.

After a change that was meant: ``ISTHMUS_WRITE_BASELINE=1 pytest tests/bpf/test_verifier.py``.
"""

import json
import os
import struct
from pathlib import Path

import pytest

from datapath import syscall
from tests.support.bpf import PROGRAMS, Machine

BASELINE = Path(__file__).with_name("verifier_baseline.json")
TOLERANCE = 0.10
LIMIT = 1_000_000  # the kernel's
VERIFIED_INSTRUCTIONS_AT = 216  # in struct bpf_prog_info


def verified(program: int) -> int:
    info = syscall._info(program, 224, "program")
    return int(struct.unpack_from("=I", info, VERIFIED_INSTRUCTIONS_AT)[0])


def test_verifier_budget(loaded: Machine) -> None:
    """Instructions the verifier walks stay within a tenth of the baseline, and far from the limit.

    Kernels differ by more than that, so the baseline counts on the release it was made on.
    """
    found = {name: verified(loaded.programs[name]) for name in PROGRAMS}
    assert max(found.values()) < LIMIT / 4
    release = ".".join(os.uname().release.split(".")[:2])
    if "ISTHMUS_WRITE_BASELINE" in os.environ:
        BASELINE.write_text(json.dumps({"kernel": release, "instructions": found}, indent=2) + "\n")
    baseline = json.loads(BASELINE.read_text())
    if baseline["kernel"] != release:
        pytest.xfail(f"the baseline is of kernel {baseline['kernel']}, this is {release}: {found}")
    for name, count in baseline["instructions"].items():
        moved = found[name] / count - 1
        assert abs(moved) <= TOLERANCE, f"{name}: {count} -> {found[name]} ({moved:+.0%})"
