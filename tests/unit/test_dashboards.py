"""Dashboards and alert rules: as their source makes them, valid, and each rule seen to fire."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import cilium_dashboards
from tests.support.dashboards import FILES, queries
from tools import gen_dashboards

ALERTS = FILES.parent / "alerts"
RULES = ALERTS / "isthmus.rules.yaml"
DOCS = FILES.parents[1] / "docs" / "monitoring.md"


def test_the_files_are_what_the_source_makes() -> None:
    """Run python -m tools.gen_dashboards after a change of tools/dashboards."""
    assert {path.name for path in FILES.glob("*.json")} == {b.file for b in gen_dashboards.BOARDS}
    for board in gen_dashboards.BOARDS:
        assert (FILES / board.file).read_text() == gen_dashboards.text(board)


@pytest.mark.parametrize("path", sorted(FILES.glob("*.json")), ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    """Panels have titles, units and queries of their own; every variable that is used is there."""
    board = json.loads(path.read_text())
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles)
    known = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"])))
    assert used <= known | {"__rate_interval"}
    assert all(panel["targets"] and panel["fieldConfig"] for panel in board["panels"])


def test_what_stays_empty_of_ciliums_dashboards_is_explained() -> None:
    assert cilium_dashboards.unexplained() == []


def test_queries_and_rules_are_valid(tmp_path: Path) -> None:
    """By promtool: a query is written as a rule for it."""
    rules = [
        {"record": f"q:n{number}", "expr": query} for number, (_, _, query) in enumerate(queries())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}))
    for path in (file, RULES):
        done = subprocess.run(
            ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_and_is_silent_when_it_should() -> None:
    """By promtool; no rule is without its two tests, none without a summary, a remedy, a page."""
    tests = ALERTS / "tests" / "isthmus_test.yaml"
    done = subprocess.run(
        ["promtool", "test", "rules", str(tests)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = {test["name"] for test in yaml.safe_load(tests.read_text())["tests"]}
    page = DOCS.read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            name = rule["alert"]
            assert {f"{name} fires", f"{name} is silent"} <= named
            assert {"summary", "remedy"} <= rule["annotations"].keys()
            assert f"`{name}`" in page
