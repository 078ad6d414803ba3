#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the kernel's own tools say of the module: W=1 and sparse for both stock
# kernels, checkpatch --strict (no errors), kernel-doc (nothing at all).
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$("$here/kernel.sh" source)
status=0

verdict() {
    local name=$1 log=$2
    if [ -s "$log" ]; then
        cat "$log"
        echo "not ok - $name"
        status=1
    else
        echo "ok - $name"
    fi
}

for kernel in 6.12 6.1; do
    root=$("$here/kernel.sh" "$kernel")
    mkdir -p "$work/$kernel"
    cp -a "$top/Kbuild" "$top/dkms.conf" "$top/module" "$top/uapi" "$work/$kernel/"
    make -s -C "$root/build" M="$work/$kernel" W=1 C=2 modules 2>&1 |
        grep -v 'Skipping BTF' >"$work/log" || true
    [ -e "$work/$kernel/module/cowmem.ko" ] || echo "no module" >>"$work/log"
    verdict "W=1 and sparse, $kernel" "$work/log"
done

# Trace headers and their macros are not plain C: known to confuse it.
(cd "$top" && perl "$source/scripts/checkpatch.pl" --strict --no-tree --terse \
    --show-types --ignore FILE_PATH_CHANGES,LINUX_VERSION_CODE -f \
    module/*.[ch] module/tests/*.c uapi/linux/*.h) >"$work/checkpatch" || true
grep ': ERROR:' "$work/checkpatch" | grep -v '^module/trace.h:' >"$work/log" || true
grep -q 'lines checked$' "$work/checkpatch" || echo "checkpatch did not run" >>"$work/log"
verdict "checkpatch --strict, errors" "$work/log"

perl "$source/scripts/kernel-doc" -none -Wall "$top"/module/*.[ch] \
    "$top"/uapi/linux/*.h >"$work/log" 2>&1 || true
verdict "kernel-doc -none -Wall" "$work/log"
# They are only run by make mutants: keep them from going stale.
: >"$work/log"
for patch in "$top"/selftests/mutants/*.patch; do
    grep -q '^Shows: .' "$patch" || echo "$patch: no Shows:" >>"$work/log"
    patch -s -F0 --dry-run -d "$top" -p1 <"$patch" >>"$work/log" 2>&1 || true
done
verdict "the mutants apply" "$work/log"
exit $status
