#!/usr/bin/env bash
# Generate the messages of etcd and of exported endpoint slices from their .proto files into the given directory (default: the checkout).
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m grpc_tools.protoc -I . --python_out="${1:-.}" kvstore/rpc.proto wire/etcd/endpointslice.proto
