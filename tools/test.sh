#!/usr/bin/env bash
# All tests, fastest first. Needs root; a skipped test is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest=.venv/bin/pytest
make --no-print-directory check
$pytest -q -n 2 tests/simulation
$pytest -q -n 2 --dist loadgroup tests/conformance tests/bpf tests/netns
$pytest -q -p no:randomly --timeout 600 --durations 25 tests/lab
make --no-print-directory test-vm
