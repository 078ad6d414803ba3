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

# verdict NAME STATUS SECONDS COMMAND...: one test, or, if it printed TAP, many.
verdict() {
    local name=$1 status=$2 seconds=$3 log=$logs/$1.log ok not_ok skip
    shift 3
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
    echo "== $name: $ok passed, $not_ok failed, $skip skipped, $seconds s"
}

# step NAME COMMAND...
step() {
    local name=$1 begun=$SECONDS
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$logs/$name.log"
    verdict "$name" "${PIPESTATUS[0]}" $((SECONDS - begun)) "$@"
}

# vms KERNEL[/SHARD]...: all at once, as most tests keep one CPU busy.
vms() {
    local begun=$SECONDS vm status pids=() i=0
    echo "== $*"
    for vm in "$@"; do
        SHARD=$(cut -s -d/ -f2 <<<"$vm") "$here/run.sh" "${vm%/*}" \
            >"$logs/${vm/\//-}.log" 2>&1 &
        pids+=($!)
    done
    for vm in "$@"; do
        status=0
        wait "${pids[i++]}" || status=$?
        cat "$logs/${vm/\//-}.log"
        verdict "${vm/\//-}" "$status" $((SECONDS - begun)) "make vm K=${vm%/*}"
    done
}

"$here/packages.sh" || exit 1
step unit make -s -C "$top" unit
step readme "$here/readme.sh"
step lint "$here/lint.sh"
step dkms "$here/dkms.sh"
step demo "$here/demo.sh"
# Not while two VMs build at once.
for kernel in 6.12 6.1 debug; do
    "$here/kernel.sh" "$kernel" >/dev/null || exit 1
done
vms 6.12 6.1
vms debug/1 debug/2
echo "All tests: $(((SECONDS - started + 59) / 60)) minutes"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
