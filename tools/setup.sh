#!/usr/bin/env bash
# Prepare a Debian 12 machine: system packages, a virtual environment with pinned versions, bpffs.
# Repeatable; asks nothing; says what is missing where it cannot go on.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "Isthmus needs Linux; this is $(uname -s)"
[ "$(id -u)" = 0 ] || fail "root is needed for namespaces and eBPF: run it as root"
release=$(uname -r)
major=${release%%.*}; rest=${release#*.}; minor=${rest%%[!0-9]*}
if [ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -lt 15 ]; }; then
  fail "kernel $release is too old: 5.15 or later is needed"
fi

# program:package pairs; a program that is already there is kept, whoever installed it.
wanted=(clang:clang llvm-strip:llvm clang-format:clang-format bpftool:bpftool etcd:etcd-server etcdctl:etcd-client
  ip:iproute2 iperf3:iperf3 nft:nftables iptables:iptables ethtool:ethtool tcpdump:tcpdump wireguard-go:wireguard-go curl:curl ping:iputils-ping
  kubectl:kubernetes-client dot:graphviz make:make gcc:gcc ps:procps nsenter:util-linux promtool:prometheus)
packages=()
for pair in "${wanted[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
done
for package in libbpf1 libbpf-dev linux-libc-dev libc6-dev python3-venv; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || packages+=("$package")
done
if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: ${packages[*]}"
  printf 'setup: installing %s\n' "${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # etcd-server would start a store of its own: the lab starts the ones it needs.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; trap 'rm -f "$policy"' EXIT
  fi
  log=$(mktemp)
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$log" 2>&1 || { tail -20 "$log" >&2; fail "apt-get could not install: ${packages[*]}"; }
  rm -f "$log"
fi

# The distribution's interpreter first: it is built with profiles, which an unpacked one often is not (ADR 0230).
python=
for candidate in /usr/bin/python3.11 /usr/bin/python3 python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$("$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'); break
  fi
done
[ -n "$python" ] || fail "Python 3.11 or later with venv is needed"
stamp=.venv/.installed-$( (sha256sum pyproject.toml requirements.lock; printf '%s\n' "$python") | sha256sum | cut -c1-16)
if [ ! -e "$stamp" ]; then
  printf 'setup: installing the Python packages for %s\n' "$python"
  [ "$(realpath -q .venv/bin/python)" = "$python" ] || "$python" -m venv --clear .venv
  .venv/bin/pip install -q --disable-pip-version-check -c requirements.lock -e '.[dev]' --config-settings editable_mode=compat
  rm -f .venv/.installed-*
  touch "$stamp"
fi

mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf || fail "no bpffs at /sys/fs/bpf: mount -t bpf bpf /sys/fs/bpf"
grep -q " cgroup2 " /proc/mounts || fail "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified"
make --no-print-directory build
