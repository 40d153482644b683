#!/usr/bin/env bash
# The kernel that tests/vm boots: the files of Debian's package in .vm/, nothing of it installed.
# Repeatable; a kernel that is there and complete is kept.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { printf 'test-vm: %s\n' "$1" >&2; exit 1; }

PATH=$PATH:/usr/sbin:/sbin
packages=()
for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static depmod:kmod; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
done
if [ ${#packages[@]} -gt 0 ] || [ ! -e .vm/complete ]; then
  command -v apt-get >/dev/null || fail "no apt-get here: the virtual machine needs ${packages[*]} and the files of linux-image-amd64 in .vm/"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
fi
if [ ${#packages[@]} -gt 0 ]; then
  log=$(mktemp)
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$log" 2>&1 || { tail -20 "$log" >&2; fail "apt-get could not install: ${packages[*]}"; }
  rm -f "$log"
fi
[ -e .vm/complete ] && exit 0

image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-6\.1\./ {print $2; exit}')
[ -n "$image" ] || fail "linux-image-amd64 is not Linux 6.1 here: Debian 12's package lists are needed"
printf 'test-vm: fetching %s\n' "$image"
rm -rf .vm; mkdir -p .vm/package
(cd .vm/package && apt-get download -qq -o APT::Sandbox::User=root "$image") || fail "apt-get could not download $image"
# Drivers of hardware that no virtual machine has are three quarters of the package.
dpkg-deb --fsys-tarfile .vm/package/*.deb | tar -x -C .vm \
  --exclude='*/drivers/gpu' --exclude='*/drivers/media' --exclude='*/drivers/infiniband' \
  --exclude='*/drivers/scsi' --exclude='*/drivers/net/ethernet' --exclude='*/drivers/net/wireless' \
  --exclude='*/drivers/staging' --exclude='*/kernel/sound' --exclude='./usr' ./boot ./lib
rm -rf .vm/package
depmod -b .vm "$(ls .vm/lib/modules)"
touch .vm/complete
