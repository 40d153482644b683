"""Rules of the house that a machine can check."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {"wire/bpf/layouts.py", "kvstore/rpc_pb2.py", "kvstore/rpc_pb2_grpc.py"}
FILE_LIMIT_LINES = 700  # past 500 a second subject should be named; past this it must be


def tracked(*patterns: str) -> list[str]:
    out = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [p for p in out.splitlines() if p not in GENERATED and (ROOT / p).exists()]


PYTHON = [p for p in tracked("*.py") if (ROOT / p).stat().st_size]


@pytest.mark.parametrize("path", PYTHON)
def test_module_says_why_it_exists(path: str) -> None:
    """Every module opens with a docstring."""
    assert ast.get_docstring(ast.parse((ROOT / path).read_text())), f"{path} has no docstring"


def test_no_file_outgrows_its_subject() -> None:
    """No source file is longer than the limit."""
    long = {
        p: n
        for p in tracked("*.py", "*.c", "*.h")
        if (n := len((ROOT / p).read_text().splitlines())) > FILE_LIMIT_LINES
    }
    assert not long


def test_c_files_carry_their_licence() -> None:
    """Every C file starts with its SPDX line."""
    spdx = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"
    bare = [p for p in tracked("*.c", "*.h") if spdx not in (ROOT / p).read_text()[:200]]
    assert not bare


def test_no_broad_handlers_in_rooms() -> None:
    """``except:`` and ``except BaseException`` do not occur; they would swallow cancellation."""
    bad = [
        p
        for p in tracked("*.py")
        if re.search(r"^\s*except(\s+BaseException\b.*)?:\s*$", (ROOT / p).read_text(), re.M)
    ]
    assert not bad


def test_adrs_are_numbered_once() -> None:
    """No two decisions share a number, and each has a decision."""
    paths = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    numbers = [p.name[:4] for p in paths]
    assert len(numbers) == len(set(numbers))
    assert all("**Decision.**" in p.read_text() or "## Decision" in p.read_text() for p in paths)


def test_every_room_has_its_page() -> None:
    """docs/modules describes every room that has code."""
    rooms = {p.split("/")[0] for p in PYTHON if "/" in p} - {"tests", "tools", "bench"}
    rooms = {
        r
        for r in rooms
        if any(len((ROOT / p).read_text()) > 200 for p in PYTHON if p.startswith(r + "/"))
    }
    missing = {r for r in rooms if not (ROOT / f"docs/modules/{r}.md").exists()}
    assert not missing


def test_links_between_pages_lead_somewhere() -> None:
    """Relative links of every page, and its headings where one is named."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            if "://" in path:
                continue
            found = (page.parent / path) if path else page
            if not found.exists() or (heading and heading not in _headings(found)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
