#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Does the harness see red?  One VM each for tests that fail in all the ways it
# knows, and for demos that have to fail.
set -u

here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

verdict() {
    if [ "$1" -eq 0 ]; then
        echo "ok - $2"
    else
        tail -n 40 "$work/out" "$work/log" | sed 's/^/# /'
        echo "not ok - $2"
        status=1
    fi
}

# vm TEST...: run them, as if they were in tests.list; they are to turn out red.
vm() {
    printf 'all 1 %s\n' "$@" >"$work/tests.list"
    ! TESTS=$work/tests.list LOG=$work/log "$here/run.sh" 6.12 >"$work/out" 2>&1
    verdict $? "red: $*"
}

# says WHAT PATTERN
says() {
    grep -qE "$2" "$work/out"
    verdict $? "$1"
}

vm 'cowmem 20 fake green' 'cowmem 20 fake red' 'cowmem 20 fake exit' \
    'cowmem 3 fake hang' 'cowmem 20 fake warning' 'cowmem 20 fake skip' 'cowmem 20 fake leak'
says "a test that is red" '^not ok 1 red$'
says "a test that fails without a word" '^not ok - fake exit: exit status 3'
says "a test that hangs" '^not ok - fake hang: no end after 3 s'
says "a warning in the kernel log" '^not ok - fake warning: kernel log: .*oom_adj is deprecated'
says "a test that is skipped for no known reason" '^not ok - unexpected skip: because'
says "pages that are left behind" '^not ok - fake leak: leak: 1 pages'
says "the line that reruns it" '^# rerun: make vm K=6.12 T=fake'
! grep -q '^not ok - fake green' "$work/out"
verdict $? "a test that is green is not red"

vm 'cowmem 20 fake panic' 'cowmem 20 fake green'
says "a kernel that dies" '^not ok - 6.12: fake panic: the VM died or hung'

# The writer of this demo commits in the midst of a transaction.
! DEMO_BREAK=1 RECORDS=2000 "$here/demo.sh" >"$work/out" 2>"$work/log"
verdict $? "a demo with torn transactions"
says "what is torn" 'torn transaction'
exit $status
