"""What the pages promise of encryption is shown by tests that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEADING = "## What is protected, and what is not"
PAGES = ("docs/modules/encryption.md", "docs/ipsec.md")


def claims(page: str) -> list[tuple[str, str]]:
    """Rows of the page's table: a claim, and what shows it."""
    text = (ROOT / page).read_text()
    assert text.count(HEADING + "\n") == 1, page
    section = text.split(HEADING + "\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    assert rows[0][0] == "Claim"
    return [(row[0], row[1].strip("| ") if len(row) > 1 else "") for row in rows[2:]]


CLAIMS = [(page, *row) for page in PAGES for row in claims(page)]
TESTS = {
    name: path
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize(("page", "claim", "shown"), CLAIMS, ids=[c[1][:40] for c in CLAIMS])
def test_every_claim_is_shown_by_a_test(page: str, claim: str, shown: str) -> None:
    """Each claim names at least one test or file of tests, and all that it names exist."""
    named = re.findall(r"`([^`]+)`", shown)
    if claim.startswith("**not**"):
        assert not shown, f"{page}: a limit needs no test: {claim}"
        return
    assert named, f"{page}: no test shows that {claim}"
    for word in named:
        if word.startswith("tests/"):
            assert (ROOT / word).is_file(), f"{page}: {word} is gone"
        else:
            assert word in TESTS, f"{page}: there is no test {word}"


def test_the_pages_claim_something() -> None:
    """And say what is not so."""
    for page in PAGES:
        rows = claims(page)
        assert len(rows) > 5
        assert any(claim.startswith("**not**") for claim, _ in rows)
