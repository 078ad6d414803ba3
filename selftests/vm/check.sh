#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# All tests.  Prints them as they run and, last of all, how many passed.
set -u

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
logs=$top/build/logs
mkdir -p "$logs"
red=$logs/red
: >"$red"
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
        echo "not ok - $name: exit status $status" | tee -a "$log"
    fi
    if [ "$not_ok" -gt 0 ]; then
        grep -q '^# rerun: ' "$log" || echo "# rerun: $*" | tee -a "$log"
        grep -hE -B 10 '^not ok |^# rerun: ' "$log" >>"$red"
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

# begin NAME COMMAND...: beside what comes next, in a process group of its own.
declare -A job command
trap 'for pid in "${job[@]}"; do kill -- "-$pid"; done 2>/dev/null' EXIT
trap 'exit 130' INT TERM
begin() {
    local name=$1
    shift
    echo "== $name"
    set -m
    (
        begun=$SECONDS status=0
        "$@" >"$logs/$name.log" 2>&1 || status=$?
        echo $((SECONDS - begun)) >"$logs/$name.seconds"
        exit $status
    ) </dev/null &
    set +m
    job[$name]=$! command[$name]=$*
}

# finish NAME...: the status is the last one's.
finish() {
    local name status
    for name in "$@"; do
        status=0
        wait "${job[$name]}" || status=$?
        unset "job[$name]"
        cat "$logs/$name.log"
        verdict "$name" "$status" "$(cat "$logs/$name.seconds")" "${command[$name]}"
    done
    return "$status"
}

# vms KERNEL TEST...: its tests, or all.  Those that are content with one CPU side
# by side, then, alone on two cores, those that race.
vms() {
    local kernel=$1 shard
    shift
    for shard in 1 2; do
        begin "$kernel-$shard" env SHARD=$shard "$here/run.sh" "$kernel" "$@"
    done
    finish "$kernel-1" "$kernel-2"
    step "$kernel-two" env SHARD=two "$here/run.sh" "$kernel" "$@"
}

# Once more what was red, where it is seen.
finale() {
    [ ! -s "$red" ] || { echo "== red"; cat "$red"; }
    echo "All tests: $(((SECONDS - started + 59) / 60)) minutes"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

# need COMMAND...: without it there is no use in going on.
need() {
    "$@" >/dev/null && return
    echo "not ok - $*" | tee -a "$red"
    failed=$((failed + 1))
    finale
    exit 1
}

interfaces=(abi advice clones cp-reflink crossing file held-page lifetime memory mmap model pins
    readme-example rights silence snapshot stress tracepoints)

need "$here/packages.sh"
need "$here/kernel.sh" source
# Where it is not there yet, and with what the others leave of the CPUs.
begin kernel nice -n 19 "$here/kernel.sh" debug
begin lint "$here/lint.sh"
begin harness "$here/harness.sh"
step unit make -s -C "$top" unit
step readme "$here/readme.sh"
step dkms "$here/dkms.sh"
step demo "$here/demo.sh"
step model "$here/../model/run.sh"
finish lint harness
# All on one kernel; elsewhere what fits the time: where kernels differ, and what
# finds most with all the checkers of a kernel that is twenty times slower.  The rest
# is for soak.sh, and make vm K=...
export COWMEM_LOADS=30	# not 100 times
vms 6.12
vms 6.1 "${interfaces[@]}"
# Backports come and go, and its compiler wants a mount namespace.
if "$here/kernel.sh" 7 >/dev/null && unshare --mount true; then
    vms 7 "${interfaces[@]}"
else
    step 7 echo "ok - the tests of 7.x # SKIP it cannot be had here"
fi
finish kernel || { finale; exit 1; }
export COWMEM_STRESS_SNAPSHOTS=40
vms debug kunit depth group memory model silence stress
finale
