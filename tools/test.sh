#!/usr/bin/env bash
# All tests, fastest first. Needs root; a skipped test is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest=.venv/bin/pytest
make --no-print-directory check
$pytest -q -n 2 tests/simulation
$pytest -q -n 2 --dist loadgroup tests/conformance tests/bpf tests/netns
# One after another: pytest-xdist 3.8 does not keep groups together under pytest 9.2, and every
# worker would make every lab.
$pytest -q -p no:randomly --timeout 600 --durations 25 tests/lab
make --no-print-directory test-vm
