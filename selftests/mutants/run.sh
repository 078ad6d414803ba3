#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: run.sh [MUTANT...]
#
# Break the module on purpose, one patch at a time, and see that a test turns red
# for that reason.  A mutant that survives is a finding.  Each patch says:
#
#	Caught-by	the test: MODULE:TEST, as in tests.list
#	Kernel		where (default 6.12)
#	Shows		what it says then: a regular expression
set -u

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

[ $# -gt 0 ] || set -- "$here"/*.patch
for patch in "$@"; do
    [ -e "$patch" ] || patch=$here/$patch.patch
    name=$(basename "$patch" .patch)
    test=$(sed -n 's/^Caught-by: //p' "$patch")
    kernel=$(sed -n 's/^Kernel: //p' "$patch")
    shows=$(sed -n 's/^Shows: //p' "$patch")
    tree=$work/$name
    mkdir -p "$tree"
    cp -a "$top/Kbuild" "$top/Makefile" "$top/dkms.conf" "$top/module" "$top/uapi" "$tree/"
    if ! patch -s -d "$tree" -p1 <"$patch"; then
        echo "not ok - $name: the patch does not apply"
        failed=$((failed + 1))
        continue
    fi
    COWMEM_TREE=$tree COWMEM_BUILD=$tree/build LOG=$work/$name.log \
        "$top/selftests/vm/run.sh" "${kernel:-6.12}" "$test" >"$work/$name.out" 2>&1
    status=$?
    if [ $status -ne 0 ] && seen=$(grep -m 1 -E "$shows" "$work/$name.log"); then
        echo "ok - $name: caught by $test: ${seen#\# }"
        passed=$((passed + 1))
    else
        echo "not ok - $name: survived $test (exit status $status)"
        tail -n 20 "$work/$name.out"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
