"""Options of the whole suite."""

import os

import pytest
from hypothesis import settings

# How long an example takes says nothing on a machine that others use as well.
settings.register_profile("isthmus", deadline=None)
settings.load_profile("isthmus")


# No test speaks to anybody whom public authorities know, and each process that is started would
# read all of them.
os.environ.setdefault("SSL_CERT_FILE", os.devnull)
os.environ.setdefault("SSL_CERT_DIR", os.devnull)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--simulation-seed N`` plays one seed of tests/simulation again and no other."""
    parser.addoption("--simulation-seed", type=int, default=None, help="play this seed alone")
    parser.addoption("--simulation-seeds", type=int, default=64, help="how many seeds to play")
