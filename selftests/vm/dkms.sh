#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Try dkms add, build, install and remove of this tree for both stock kernels, in
# directories of its own: this machine's DKMS tree and modules stay untouched.
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$top/dkms.conf")
mkdir -p "$work/tree" "$work/source" "$work/modules" "$work/cowmem"
cp -a "$top/Kbuild" "$top/Makefile" "$top/dkms.conf" "$top/module" "$top/uapi" "$work/cowmem/"
dirs=(--dkmstree "$work/tree" --sourcetree "$work/source" --installtree "$work/modules")

step() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok - $name"
    else
        cat "$work/log" "$work"/tree/cowmem/"$version"/build/make.log 2>/dev/null || true
        echo "not ok - $name"
        exit 1
    fi
}

step "dkms add" dkms add "${dirs[@]}" "$work/cowmem"
for kernel in 6.12 6.1; do
    root=$("$here/kernel.sh" "$kernel")
    release=$(cat "$root/release")
    mkdir -p "$work/modules/$release"
    target=("cowmem/$version" -k "$release" -a x86_64)
    step "dkms build for $release" \
        dkms build "${dirs[@]}" "${target[@]}" --kernelsourcedir "$root/build"
    step "dkms install for $release" \
        dkms install "${dirs[@]}" "${target[@]}" --no-depmod
    module=$(find "$work/modules/$release" -name 'cowmem.ko*')
    step "modinfo of $release names version $version" \
        test "$(modinfo -F version "$module")" = "$version"
    step "vermagic of $release" \
        grep -q "^$release " <(modinfo -F vermagic "$module")
done
step "dkms remove" dkms remove "${dirs[@]}" "cowmem/$version" --all --no-depmod
