"""`isthmus simulate mesh`: a real agent among simulated clusters: what it tells and leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# One after the other: what is left is told by looking at all processes.
pytestmark = [pytest.mark.root]

ROOT = Path(__file__).parents[2]
SMALL = ["--clusters=4", "--nodes=3", "--endpoints=60", "--identities=5", "--services=3"]


def _command(*more: str) -> list[str]:
    return [str(Path(sys.executable).with_name("isthmus")), "simulate", "mesh", *SMALL, *more]


def _run(*more: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        _command("-o", "json", *more), cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def _ours() -> set[int]:
    """Processes that run in an enclosure, by what stands in their command lines."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"kind.simulate" in text or b"/run/isthmus/simulate" in text:
            found.add(int(path.parent.name))
    return found


def test_the_kernel_holds_what_the_clusters_say() -> None:
    """Mirrored clusters and one with an etcd of its own: everything arrives, changes too."""
    code, report, said = _run("--churn=40", "--duration=8s", "--seed=5", "--direct=1")
    assert (code, report["ok"], report["errors"]) == (0, True, []), said
    assert report["rows"] == 4 * (3 + 60 + 5 + 3)
    assert report["bootstrap"]["programmed_s"] >= report["bootstrap"]["in_sync_s"] > 0
    assert report["bootstrap"]["cpu_s"] > 0
    assert report["churn"]["propagation"]["count"] > 100
    assert 0 < report["churn"]["propagation"]["p50_ms"] <= report["churn"]["propagation"]["p99_ms"]
    rows, room = report["maps"]["ipcache"]
    assert 4 * 63 <= rows < room
    # A line per phase, where nobody looks at a terminal; a busy machine is late with the last.
    churned = re.search(r"seconds of churn: (\d+)", said)
    assert churned is not None
    assert int(churned[1]) >= 8


def test_a_map_that_is_too_small_is_told() -> None:
    """Rows that find no room: exit code 1, how many are missing, and the setting to change."""
    code, report, said = _run("--churn=0", "--seed=5", "--agent=bpf-ipcache-map-max=100")
    assert code == 1, said
    assert not report["ok"]
    assert any("ipcache" in e and "rows missing" in e for e in report["errors"]), report["errors"]
    assert any("the map is full at 100" in e for e in report["errors"]), report["errors"]
    assert any(
        re.search(r"map ist_ipcache: 25\d of 100 entries are wanted.*raise bpf-ipcache-map-max", w)
        for w in report["warnings"]
    ), report["warnings"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(number: int) -> None:
    """Ended in the middle, also by force: no process, and an empty directory."""
    before = _ours()
    process = subprocess.Popen(
        _command("--churn=10", "--duration=100s"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "rows written" in line:  # etcds run, and the agent starts
            break
    deadline = time.monotonic() + 30
    while len(_ours() - before) <= 4:
        assert time.monotonic() < deadline, "what it begins is not there"
        time.sleep(0.05)
    process.send_signal(number)
    code = process.wait(timeout=60)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    deadline = time.monotonic() + 60  # the kernel takes namespaces down in its own time
    while (left := _ours() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.stderr.close()
    assert not left
    assert not os.listdir("/run/isthmus/simulate")
