"""Collected here, run in the virtual machine, reported here.

Outside, the tests of this directory are collected as ever; then machines of one processor are
booted, as many as this one has processors, four at most. Each claims units of tests until none is
left, runs them with its own pytest, and writes each report as a line; those reports are this run's.
A test without a report, or one that was skipped inside, has failed. Inside (``ISTHMUS_VM_REPORT``
is set) they are plain tests.
"""

import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import vm

REPORT = os.environ.get("ISTHMUS_VM_REPORT")
HERE = Path(__file__).parent
MACHINES = min(os.cpu_count() or 1, 4)
WHOLE_RUN_S = 2700
TEST_S = 300  # of one test inside, where everything takes ten times as long

_reports = pytest.StashKey[dict[str, list[dict[str, Any]]]]()
_console = pytest.StashKey[str]()


def _ours(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if HERE in item.path.parents]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in _ours(items):
        item.add_marker(pytest.mark.root)


def _units(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """What one machine runs as a whole: a file, or what it marks as a ``part``. Largest first."""
    units: dict[tuple[str, object], list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker("part")
        units.setdefault((item.path.name, marker and marker.args), []).append(item)
    return sorted(units.values(), key=len, reverse=True)


if REPORT is not None:

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(session: pytest.Session) -> bool:
        claims = Path(os.environ["ISTHMUS_VM_CLAIMS"])
        for number, unit in enumerate(_units(session.items)):
            try:
                (claims / str(number)).mkdir()
            except FileExistsError:  # another machine's
                continue
            for item, after in zip(unit, [*unit[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        return True

    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        line = {"nodeid": report.nodeid, "report": report._to_json()}
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

else:

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
        items = _ours(session.items)
        if items and not session.config.option.collectonly:
            _boot(session.config, items)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(item: pytest.Item) -> bool:
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in _outcome(item):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def _boot(config: pytest.Config, items: list[pytest.Item]) -> None:
    vm.compile_modules()
    wanted = " ".join(shlex.quote(item.nodeid) for item in items)
    script = (
        ".venv/bin/python -m pytest -q -p no:randomly -p no:cacheprovider"
        f" --timeout {TEST_S} {wanted}"
    )
    with tempfile.TemporaryDirectory(prefix="ist-vm-") as place, ExitStack() as running:
        shared = Path(place)
        claims = shared / "claims"
        claims.mkdir()
        machines: dict[str, subprocess.Popen[bytes]] = {}
        said: list[str] = []
        try:
            for number in range(min(len(_units(items)), MACHINES)):
                name = f"machine{number}"
                environment = {
                    "ISTHMUS_VM_REPORT": str(shared / f"{name}.reports"),
                    "ISTHMUS_VM_CLAIMS": str(claims),
                    "PYTHONDONTWRITEBYTECODE": "1",
                }
                machine = vm.machine(name, script, shared, environment)
                machines[name] = running.enter_context(machine)
            until_s = time.monotonic() + WHOLE_RUN_S
            for name, child in machines.items():
                try:
                    child.wait(max(0.0, until_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    said.append(f"{name}: ended, not done after {WHOLE_RUN_S} s")
        except vm.NoMachine as error:
            said.append(str(error))
        running.close()
        for name in machines:
            console = (shared / f"{name}.console").read_text("utf-8", errors="replace")
            said.append(f"{name}:\n{console[-3000:]}")
        config.stash[_console] = "\n".join(said)
        config.stash[_reports] = found = {}
        for written in shared.glob("*.reports"):
            for line in map(json.loads, written.read_text("utf-8").splitlines()):
                found.setdefault(line["nodeid"], []).append(line["report"])


def _outcome(item: pytest.Item) -> list[pytest.TestReport]:
    """What the machine reported of a test; its absence, and a skip, as a failure."""
    reports = [
        pytest.TestReport._from_json(report)
        for report in item.config.stash[_reports].get(item.nodeid, [])
    ]
    if not any(report.when == "teardown" for report in reports):
        return [*reports, _failure(item, item.config.stash[_console])]
    for report in reports:
        if report.skipped and not hasattr(report, "wasxfail"):
            return [_failure(item, f"skipped inside the virtual machine: {report.longrepr}")]
    return reports


def _failure(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, {}, "failed", f"no result of this test\n{text}", "call"
    )
