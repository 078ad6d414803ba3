#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Install the Debian packages that building, testing and the demo need, those
# that are missing.  Installs no kernel: the ones that the VMs boot are only
# unpacked, see kernel.sh.
set -eu

packages=(
    build-essential bc bison flex cpio file kmod libelf-dev libssl-dev
    dwarves python3 rsync xz-utils
    busybox-static qemu-system-x86
    sparse dkms spin
    liblmdb-dev lmdb-utils
    trinity
)

# The compilers that the headers packages name.
packages+=(gcc-12)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
        grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "Missing packages; as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# DKMS recommends kernel headers, which recommend kernels: not wanted here.
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
