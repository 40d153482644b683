"""`isthmus certs list`: what it says of a Secret."""

from datetime import UTC, datetime, timedelta

import pytest

from certs.issue import create_ca, issue
from certs.profiles import CA_SECRET, REMOTE_SECRET, Profile
from cli.certs import describe

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "state"), [(100, "good"), (29, "expires soon"), (0, "expired on 2026-04-30")]
)
def test_state_of_a_certificate(days: int, state: str) -> None:
    """Good, soon at its end, or past it with the remedy."""
    ca = create_ca(NOW - timedelta(days=1))
    profile = Profile("remote", client=True, validity_days=max(days, 1))
    issued = NOW if days else NOW - timedelta(days=1, hours=1)
    row = describe(REMOTE_SECRET, issue(ca, profile, issued).secret_data(ca.certificate), NOW)
    assert row["subject"] == "remote"
    assert row["state"].startswith(state)


def test_an_authority_and_nothing() -> None:
    """The authority itself, and a Secret that is not there."""
    ca = create_ca(NOW)
    assert describe(CA_SECRET, {"ca.crt": ca.certificate}, NOW)["state"] == "good"
    assert describe(REMOTE_SECRET, {}, NOW)["state"] == "absent"
