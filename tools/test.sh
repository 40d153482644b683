#!/usr/bin/env bash
# All tests, fastest first. Needs root; a skipped test is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest=.venv/bin/pytest
make --no-print-directory check
$pytest -q -n 2 tests/simulation
# A file is one worker's, or each would make what a file's tests share.
# Three workers for two processors: half of what these tests do is waiting.
$pytest -q -n 3 --dist loadfile --durations 15 tests/conformance tests/bpf tests/netns
# One after another: two labs at a time leave the machine no room for what tests measure.
$pytest -q -p no:randomly --timeout 600 --durations 25 tests/lab
make --no-print-directory test-vm
