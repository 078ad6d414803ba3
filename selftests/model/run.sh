#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: run.sh [NAME...]
#
# Search all states that the model of the protocol can be in, see protocol.pml;
# and break it on purpose, and see that spin finds what that breaks.
set -u

here=$(dirname "$(realpath "$0")")
build=$(realpath "$here/../..")/build/model
status=0 known=0

# What the third thread does with a snapshot, how many it takes, and how often the
# writers go round: as many as can be searched in a minute.
scenarios='
snapshot         SNAPSHOT SHOTS=1 ROUNDS=1
drop             DROP SHOTS=1 ROUNDS=1
clone            CLONE SHOTS=1 ROUNDS=1
restore          RESTORE SHOTS=1 ROUNDS=1
snapshot-pinned  SNAPSHOT PIN SHOTS=1 ROUNDS=2
restore-pinned   RESTORE PIN SHOTS=1 ROUNDS=2'

# What is broken, as in ../mutants/ where that has a patch of the name; in which
# scenario that shows, and what breaks then: the name of an assertion.
mutants='
faults-not-blocked      snapshot         torn_cut
install-after-unlock    snapshot         not_isolated
no-tree-lock            snapshot         lost_store
snap-twice              snapshot         deadlock
reuse-while-held        drop             reused_while_held
drop-before-revoke      clone            not_isolated
restore-without-revoke  restore          lost_store
hole-stays-mapped       snapshot         foreign_pte
drop-before-copy        snapshot         used_after_free
parent-not-copied       snapshot         shared_node_changed
reserve-forgotten       snapshot         leaked
pins-before-revoke      snapshot-pinned  not_isolated
pinned-not-kept         restore-pinned   lost_store'

# search DIRECTORY OPTION DEFINE...: what it said is in DIRECTORY/log.
search() {
    local dir=$1 option=$2
    shift 2
    rm -rf "$dir"
    mkdir -p "$dir"
    (
        cd "$dir" || exit
        spin "${@/#/-D}" -a "$here/protocol.pml" &&
            gcc $option -w -DSAFETY -DCOLLAPSE -DMEMLIM=2048 -o pan pan.c &&
            ./pan -m10000
        [ ! -e protocol.pml.trail ] ||
            spin "${@/#/-D}" -t -p -k protocol.pml.trail "$here/protocol.pml" >trail
    ) >"$dir/log" 2>&1
}

# verdict NAME STATUS WHAT
verdict() {
    local dir=$build/$1 states
    states=$(awk '/states, stored/ { n = $1 } /total actual memory/ { mb = $1 }
                  /^pan: elapsed/ { s = $4 }
                  END { printf "%d states, %.0f s, %.0f MB", n, s, mb }' "$dir/log")
    if [ "$2" -eq 0 ]; then
        echo "ok - $1: $3: $states"
        return
    fi
    grep -E '^pan:|^spin:|rror|not completed' "$dir/log" | sed 's/^/# /'
    echo "not ok - $1: $3: $states"
    echo "# log and trail: $dir"
    echo "# rerun: make model T=$1"
    status=1
}

defines_of() {
    sed -n "s/^$1  *//p" <<<"$scenarios"
}

scenario() {
    local log=$build/$1/log
    search "$build/$1" -O1 $(defines_of "$1")
    grep -q 'errors: 0$' "$log" && ! grep -qE '^error|not completed' "$log"
    verdict "$1" $? "no error in any state"
}

# To compile them takes longer than to search.
mutant() {
    local log=$build/$1/log mutation
    mutation=$(tr a-z- A-Z_ <<<"$1")
    if [ "$3" = deadlock ]; then
        search "$build/$1" -O0 $(defines_of "$2") "$mutation"
        grep -q '^pan:1: invalid end state' "$log"
    else
        search "$build/$1" -O0 $(defines_of "$2") "$mutation" "ONLY=$3"
        grep -q "^pan:1: assertion violated .*||$3)" "$log"
    fi
    verdict "$1" $? "mutant of $2, has $3"
}

# wanted NAME [NAME...]: is the first one of the others, or are there none?
wanted() {
    [ $# -eq 1 ] || printf '%s\n' "${@:2}" | grep -qxF "$1" || return
    known=$((known + 1))
}

while read -r name _; do
    wanted "$name" "$@" && scenario "$name"
done < <(sed 1d <<<"$scenarios")
while read -r name where what; do
    wanted "$name" "$@" && mutant "$name" "$where" "$what"
done < <(sed 1d <<<"$mutants")
if [ $# -gt 0 ] && [ $known -ne $# ]; then
    echo "not ok - no such scenario or mutant: one of $*"
    status=1
fi
exit $status
