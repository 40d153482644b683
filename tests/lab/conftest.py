"""Labs shared by the tests of this directory, and what is collected when one of them fails."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import lab as labs
from tests.support.lab import Lab
from tests.support.lab_sniffer import watching

# Where the state of a failed test's lab is written, beside the report.
DIAGNOSTICS = Path(os.environ.get("ISTHMUS_TEST_DIAGNOSTICS", "/tmp/isthmus-diagnostics"))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two clusters of two nodes with Isthmus installed; shared by all, removed at the end."""
    made = labs.start("m")
    yield made
    labs.stop(made)


@pytest.fixture(autouse=True)
def _no_leak() -> Iterator[None]:
    """In every test, whatever it is about."""
    with watching(list(labs.RUNNING)):
        yield


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Lab]:
    """One cluster of two nodes with a stub in place of the network plugin."""
    made = labs.start("b", "--no-install", clusters=1)
    labs.install_stub(made)
    labs.wait_until(
        "nodes are Ready",
        lambda: all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"]["conditions"])
            for n in made.get("nodes")["items"]
        ),
    )
    yield made
    labs.stop(made)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Collect the state of the lab before anything is torn down."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    for name in ("lab", "bare_lab"):
        made = getattr(item, "funcargs", {}).get(name)
        if isinstance(made, Lab):
            DIAGNOSTICS.mkdir(parents=True, exist_ok=True)
            path = DIAGNOSTICS / f"{item.name.replace('/', '_')[:100]}.txt"
            path.write_text(made.diagnostics())
            report.sections.append(("lab diagnostics", f"written to {path}"))
