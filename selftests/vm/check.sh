#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# All tests.  Prints them as they run and, last of all, how many passed.
set -u

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
logs=$top/build/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
started=$SECONDS

count() {
    grep -cE "$1" "$2" || true
}

# step NAME COMMAND...: one test, or, if it prints TAP, many.
step() {
    local name=$1 log=$logs/$1.log status begun=$SECONDS ok not_ok skip
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    skip=$(count '^ok .*# SKIP' "$log")
    ok=$(($(count '^ok ' "$log") - skip))
    not_ok=$(count '^not ok ' "$log")
    if [ $((ok + not_ok + skip)) -eq 0 ] && [ "$status" -eq 0 ]; then
        ok=1
    elif [ "$not_ok" -eq 0 ] && [ "$status" -ne 0 ]; then
        not_ok=1
        echo "not ok - $name: exit status $status"
        echo "# rerun: $*"
    fi
    passed=$((passed + ok)) failed=$((failed + not_ok)) skipped=$((skipped + skip))
    echo "== $name: $ok passed, $not_ok failed, $skip skipped, $((SECONDS - begun)) s"
}

"$here/packages.sh" || exit 1
step unit make -s -C "$top" unit
step readme "$here/readme.sh"
step lint "$here/lint.sh"
step dkms "$here/dkms.sh"
step demo "$here/demo.sh"
for kernel in 6.12 6.1 debug; do
    step "$kernel" "$here/run.sh" "$kernel"
done
echo "All tests: $(((SECONDS - started + 59) / 60)) minutes"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
