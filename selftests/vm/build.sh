#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: build.sh KERNEL [VARIABLE=1...]
#
# Build the module for a kernel of kernel.sh, without a warning, in a directory
# of its own under build/, and print the path of cowmem.ko.  Variables are those
# of test builds: AMPLIFY=1, KUNIT=1, KCOV=1.
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "${COWMEM_TREE:-$here/../..}")
kernel=$1
shift
root=$("$here/kernel.sh" "$kernel")
variant=$(printf '%s' "$@" | tr -d '=1' | tr '[:upper:]' '[:lower:]')
dir=${COWMEM_BUILD:-$top/build}/${kernel##*/}${variant:+-$variant}

kbuild() {
    if [ ! -e "$root/usr/bin/make" ]; then
        make -s -C "$root/build" M="$dir" "$@"
        return
    fi
    # What it wants is of another suite, with other libraries.  So make gets that
    # suite's /usr, which nobody else sees and which is gone when make is: a mount
    # namespace does not outlive its processes, however they end.
    mkdir -p "$root/usr/src/module"
    # shellcheck disable=SC2016
    unshare --mount sh -ec '
        usr=$1 dir=$2
        shift 2
        mount --bind "$dir" "$usr/src/module"
        mount --rbind "$usr" /usr
        exec make -s -C "/usr/src/${0##*/}" M=/usr/src/module "$@"
    ' "$(realpath "$root/build")" "$root/usr" "$dir" "$@"
}

mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9
# Only what differs, as new as it is here: what has been built stays built.
rsync -rlpc --exclude='*.o' --exclude='*.ko' --exclude='*.mod*' --exclude='.*.cmd' \
    "$top/Kbuild" "$top/Makefile" "$top/dkms.conf" "$top/module" "$top/uapi" "$dir/"
log=$(kbuild -j"$(nproc)" W=1 "$@" modules 2>&1) || {
    echo "$log" >&2
    exit 1
}
# Without vmlinux there is no BTF; nobody here uses it.
if warnings=$(grep -E 'warning|WARNING|error' <<<"$log"); then
    echo "$warnings" >&2
    kbuild clean
    exit 1
fi
echo "$dir/module/cowmem.ko"
