"""The virtual machine of the tests ends with the tests, however those end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In place of a machine: a group of processes that would go on for minutes.
TESTS = """
import subprocess
from tests.support.vm import ended_with_us
machine = ["sh", "-c", "sleep 300 & echo $!; sleep 301"]
with (
    ended_with_us() as watch,
    subprocess.Popen(machine, stdout=subprocess.PIPE, text=True, start_new_session=True) as child,
):
    watch(child.pid)
    print(child.stdout.readline(), end="", flush=True)
    child.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_machine_ends_with_killed_tests(number: signal.Signals) -> None:
    """Also what it has started, and without a chance for the tests to say goodbye."""
    with subprocess.Popen(
        [sys.executable, "-c", TESTS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        machine = int(tests.stdout.readline())
        assert _lives(machine)
        os.kill(tests.pid, number)
    deadline = time.monotonic() + 20
    while _lives(machine):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
