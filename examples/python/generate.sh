#!/usr/bin/env bash
# Generates the Python code of the protos: into `gen` beside this script, or where the first argument says.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here/gen}
mkdir -p "$out"
"${PYTHON:-python3}" -m grpc_tools.protoc \
    --proto_path="$here/../../proto" --proto_path="$here/../proto" \
    --python_out="$out" --grpc_python_out="$out" \
    countersign/v1/auth.proto countersign/v1/token.proto stock/v1/stock.proto
