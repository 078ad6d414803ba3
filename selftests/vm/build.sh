#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: build.sh KERNEL [VARIABLE=1...]
#
# Build the module for a kernel of kernel.sh, without a warning, in a directory
# of its own under build/, and print the path of cowmem.ko.  Variables are those
# of test builds: AMPLIFY=1, KUNIT=1.
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "${COWMEM_TREE:-$here/../..}")
kernel=$1
shift
root=$("$here/kernel.sh" "$kernel")
variant=$(printf '%s' "$@" | tr -d '=1' | tr '[:upper:]' '[:lower:]')
dir=${COWMEM_BUILD:-$top/build}/${kernel##*/}${variant:+-$variant}

mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9
# Only what differs, as new as it is here: what has been built stays built.
rsync -rlpc --exclude='*.o' --exclude='*.ko' --exclude='*.mod*' --exclude='.*.cmd' \
    "$top/Kbuild" "$top/Makefile" "$top/dkms.conf" "$top/module" "$top/uapi" "$dir/"
log=$(make -s -j"$(nproc)" -C "$root/build" M="$dir" W=1 "$@" modules 2>&1) || {
    echo "$log" >&2
    exit 1
}
# Without vmlinux there is no BTF; nobody here uses it.
if warnings=$(grep -E 'warning|WARNING|error' <<<"$log"); then
    echo "$warnings" >&2
    make -s -C "$root/build" M="$dir" clean
    exit 1
fi
echo "$dir/module/cowmem.ko"
