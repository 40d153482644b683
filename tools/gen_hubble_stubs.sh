#!/usr/bin/env bash
# Generate Hubble's messages (and their types for mypy) into wire/hubble of the given directory (default: the checkout).
# A .proto lies where its name says (flow/flow.proto: reflection shows that name), its messages in wire.hubble.flow_pb2.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${1:-.}/wire/hubble"
made="$(mktemp -d)"
trap 'rm -rf "$made"' EXIT
.venv/bin/python -m grpc_tools.protoc -I wire/hubble --python_out="$made" --pyi_out="$made" \
  flow/flow.proto relay/relay.proto observer/observer.proto peer/peer.proto recorder/recorder.proto \
  ui/status.proto ui/notifications.proto ui/ui.proto customprotocol/customprotocol.proto
mkdir -p "$target"
for made_file in "$made"/*/*_pb2.py*; do
  sed -E -e 's/^from [a-z]+ import ([a-z]+_pb2)/from wire.hubble import \1/' \
    -e 's/^from [a-z]+\.([a-z]+_pb2) import/from wire.hubble.\1 import/' \
    -e "s/'[a-z]+\.([a-z]+_pb2)'/'wire.hubble.\1'/" "$made_file" > "$target/$(basename "$made_file")"
done
