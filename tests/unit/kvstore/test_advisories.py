"""Which etcd is known to be weak."""

import pytest

from kvstore.advisories import Weakness, weaknesses


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("3.4.23", {Weakness.NESTED, Weakness.WATCH_ON}),
        ("3.4.42", {Weakness.WATCH_ON}),
        ("3.3.9", {Weakness.NESTED, Weakness.WATCH_ON}),
        ("3.5.27", {Weakness.NESTED, Weakness.WATCH_ON}),
        ("3.5.33", set()),
        ("3.6.9", {Weakness.WATCH_ON}),
        ("3.6.14", set()),
        ("3.7.0", {Weakness.WATCH_ON}),
        ("3.7.1-rc.0", set()),
        ("4.0.0", set()),
        ("who knows", set(Weakness)),
    ],
)
def test_versions(version: str, found: set[Weakness]) -> None:
    """Mended from a release of each line on; lines after the last one are mended."""
    assert set(weaknesses(version)) == found
