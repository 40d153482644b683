#!/usr/bin/env bash
# C format, and every shared header on its own.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t sources < <(git ls-files 'bpf/*.c' 'bpf/*.h' 'cni/*.c' 'bench/*.c')
[ ${#sources[@]} -eq 0 ] || clang-format --dry-run --Werror "${sources[@]}"
for header in $(git ls-files 'bpf/lib/*.h'); do
  printf '#include "%s"\n' "${header#bpf/}" |
    clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror -Wno-unused-function -Ibpf -Ibpf/lib \
      -isystem "/usr/include/$(uname -m)-linux-gnu" -x c -fsyntax-only - || { echo "header does not stand alone: $header" >&2; exit 1; }
done
