#!/usr/bin/env bash
# Generate kvstore/rpc_pb2.py from kvstore/rpc.proto into the given directory (default: the checkout).
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m grpc_tools.protoc -I . --python_out="${1:-.}" kvstore/rpc.proto
