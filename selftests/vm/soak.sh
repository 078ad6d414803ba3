#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: soak.sh [MINUTES]
#
# What takes too long for check.sh, round after round with fresh seeds, until the
# time is over (default 60 minutes; what has begun then goes on to its end) or
# something is found: exit status 1.
set -u

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
minutes=${1:-60}
log=$top/build/logs/soak.log
mkdir -p "${log%/*}"

export COWMEM_STRESS_SNAPSHOTS=1000 COWMEM_MODEL_OPS=100000 COWMEM_DEATHS=100 \
    COWMEM_FUZZ_CALLS=1000000 COWMEM_TRINITY_CALLS=1000000 SLOW=20

# turn KERNEL TEST...: or all that it has.
turn() {
    local begun=$SECONDS
    [ $SECONDS -lt $((minutes * 60)) ] || { echo "Nothing found."; exit 0; }
    COWMEM_SEED=$((RANDOM * 32768 + RANDOM))
    export COWMEM_SEED
    echo "== $*${SHARD:+ shard $SHARD}, seed $COWMEM_SEED"
    if "$here/run.sh" "$@" >"$log" 2>&1; then
        echo "   $(grep -c '^ok ' "$log") passed, $((SECONDS - begun)) s"
        return
    fi
    grep -E -B 10 '^not ok ' "$log"
    # With all that made it what it is.
    grep '^# rerun: ' "$log" |
        sed "s/# rerun: /&SLOW=$SLOW $(env | grep -E '^COWMEM_' | tr '\n' ' ')/"
    exit 1
}

# The debug kernel takes twenty times as long, KCSAN's ten.
slow_turn() {
    COWMEM_STRESS_SNAPSHOTS=200 COWMEM_MODEL_OPS=5000 COWMEM_DEATHS=10 \
        COWMEM_FUZZ_CALLS=100000 SLOW=4 turn "$@"
}

while :; do
    # In shards, as in check.sh: what needs no CPU of its own is better off without.
    for kernel in 6.12 7 6.1; do
        for shard in two 1 2; do
            SHARD=$shard turn "$kernel"
        done
    done
    slow_turn kcsan crossing model death fuzz stress
    slow_turn debug
done
