"""Collected here, run in the virtual machine, reported here.

Outside, the tests of this directory are collected as ever; then one machine is booted, runs them
with its own pytest, and writes each report as a line; those reports are this run's. A test without
a report, or one that was skipped inside, has failed. Inside (``ISTHMUS_VM_REPORT`` is set) they are
plain tests.
"""

import json
import os
import shlex
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support import vm

REPORT = os.environ.get("ISTHMUS_VM_REPORT")
HERE = Path(__file__).parent
WHOLE_RUN_S = 2700
TEST_S = 300  # of one test inside, where everything takes ten times as long

_reports = pytest.StashKey[dict[str, list[dict[str, Any]]]]()
_console = pytest.StashKey[str]()


def _ours(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if HERE in item.path.parents]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in _ours(items):
        item.add_marker(pytest.mark.root)


if REPORT is not None:

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
    with tempfile.TemporaryDirectory(prefix="ist-vm-") as name:
        shared = Path(name)
        wanted = " ".join(shlex.quote(item.nodeid) for item in items)
        script = (
            ".venv/bin/python -m pytest -q -p no:randomly -p no:cacheprovider"
            f" --timeout {TEST_S} {wanted}"
        )
        environment = {
            "ISTHMUS_VM_REPORT": str(shared / "reports"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        try:
            config.stash[_console] = vm.run(script, shared, environment, WHOLE_RUN_S)
        except vm.NoMachine as error:
            config.stash[_console] = str(error)
        config.stash[_reports] = found = {}
        written = shared / "reports"
        lines = written.read_text("utf-8").splitlines() if written.exists() else []
        for line in map(json.loads, lines):
            found.setdefault(line["nodeid"], []).append(line["report"])


def _outcome(item: pytest.Item) -> list[pytest.TestReport]:
    """What the machine reported of a test; its absence, and a skip, as a failure."""
    reports = [
        pytest.TestReport._from_json(report)
        for report in item.config.stash[_reports].get(item.nodeid, [])
    ]
    if not any(report.when == "teardown" for report in reports):
        return [*reports, _failure(item, item.config.stash[_console][-6000:])]
    for report in reports:
        if report.skipped and not hasattr(report, "wasxfail"):
            return [_failure(item, f"skipped inside the virtual machine: {report.longrepr}")]
    return reports


def _failure(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, {}, "failed", f"no result of this test\n{text}", "call"
    )
