#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: run.sh KERNEL [TEST...]
#
# Boot a kernel of kernel.sh in QEMU and run tests in it: those named, or all
# that tests.list has for it.  Green is exit status 0 and the word "pass" on the
# VM's second serial port; a splat, a hang, a leak and a red test are red.
#
#	ACCEL		QEMU's accelerator (default tcg; a /dev/kvm that opens may
#			still hang, so kvm is never guessed)
#	TIMEOUT		seconds until the VM counts as hung
#	SHARD		1 or 2: every other test of those for which one CPU is
#			enough, with one thread that emulates both, so that two VMs
#			share two cores; two: only the others
#	SLOW		give each test so many times the seconds of tests.list
#	LOG		what the VM says (default: in build/)
#	COWMEM_*	what the tests say about it: how long they go on
#	TESTS		the list of tests (default: tests.list)
#	COWMEM_TREE	sources of the module (default: this tree)
#	COWMEM_BUILD	where to build the module (default: build/ in this tree)
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
kernel=$1
shift
# Another tree's module is not built in the place of this one's.
[ -z "${COWMEM_TREE:-}" ] || : "${COWMEM_BUILD:?where to build COWMEM_TREE}"
build=${COWMEM_BUILD:-$top/build}
export COWMEM_BUILD=$build
memory=2048
# With ERMS pages are cleared and copied by the byte, which takes an emulator long.
cpu=max,-erms
append="console=ttyS0 quiet panic=-1 panic_on_warn=1 oops=panic hung_task_panic=1 random.trust_cpu=on tsc=nowatchdog log_buf_len=4M"
# A busy host may be late with the interrupt that the boot waits for, or panics; and
# it stops an emulated CPU for longer than the watchdogs believe.
append+=" no_timer_check watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300"
# Memory that the module forgets to zero has to look like it.
append+=" init_on_alloc=0"

slow=${SLOW:-1}
if [ "$kernel" = debug ]; then
    append+=" page_owner=on kmemleak=on kunit.enable=1"
    # It finds what is written through a PTE that outlived its page, for the price
    # of two passes over each page: where CPUs race for one.
    [ "${SHARD:-two}" != two ] || append+=" page_poison=on"
    memory=1024
    slow=$((slow * 6))
    : "${COWMEM_MODEL_OPS=1000}" "${COWMEM_CLONES_ROUNDS=100}" "${COWMEM_DEPTH=500}"
    : "${COWMEM_FUZZ_CALLS=10000}" "${COWMEM_DEATHS=4}" "${COWMEM_LOADS=10}"
elif [ "$kernel" = kcsan ]; then
    # It tells of races that are none of ours as well: init.sh knows them apart.
    append+=" panic_on_warn=0 kcsan.skip_watch=1000"
    slow=$((slow * 6))
fi
# PID 1 finds these in its environment: all but what is said to this script.
for variable in "${!COWMEM_@}"; do
    case $variable in
    COWMEM_BUILD|COWMEM_CACHE|COWMEM_TREE) ;;
    *) append+=" $variable=${!variable}" ;;
    esac
done
root=$("$here/kernel.sh" "$kernel")

# Lines of tests.list for this kernel, whose name matches.
select_tests() {
    local kernels cpus module seconds command wanted nr=0
    while read -r kernels cpus module seconds command; do
        case $kernels in ''|'#'*) continue ;; esac
        case ",$kernels," in *",$kernel,"*|*,all,*) ;; *) continue ;; esac
        if [ $# -gt 0 ]; then
            wanted=
            for pattern in "$@"; do
                [[ ${command%% *} == "$pattern" || "$module:${command%% *}" == "$pattern" ]] && wanted=1
            done
            [ -n "$wanted" ] || continue
        fi
        case ${SHARD:-}/$cpus in
        /*|two/2) ;;
        [12]/1) nr=$((nr + 1)); [ $((nr % 2)) -eq $((SHARD % 2)) ] || continue ;;
        *) continue ;;
        esac
        # All those checkers take their time.
        echo "$module $((seconds * slow)) $command"
    done <"${TESTS:-$here/tests.list}"
}

for pattern in "$@"; do
    if [ -z "$(SHARD='' select_tests "$pattern")" ]; then
        echo "run.sh: no such test for $kernel: $pattern" >&2
        exit 1
    fi
done
# Races want a CPU each.  For all else one thread that emulates both is faster, and
# knows when code changes under it, which two now and then see too late.
accel=tcg,thread=single
case ${SHARD:-} in
1|2) ;;
*) [ -z "$(SHARD=two select_tests "$@")" ] || accel=tcg,thread=multi ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
mkdir -p "$stage/bin" "$stage/tests"
select_tests "$@" >"$stage/tests.list"

stage_module() {
    local ko
    ko=$("$here/build.sh" "$kernel" "${@:2}")
    cp "$ko" "$stage/$1"
}

# stage_program FILE DIR: a program of this machine, and what it is linked to.
stage_program() {
    mkdir -p "$stage/$2"
    cp -L "$1" "$stage/$2/"
    for file in $(ldd "$1" | grep -o '/[^ ]*'); do
        mkdir -p "$stage/$(dirname "$file")"
        cp -L "$file" "$stage/$file"
    done
}

stage_module cowmem.ko
if grep -q '^amplify ' "$stage/tests.list"; then
    stage_module amplify.ko AMPLIFY=1
fi
if grep -q '^tall ' "$stage/tests.list"; then
    stage_module tall.ko NODE_SHIFT=2
fi
if grep -q '^kcov ' "$stage/tests.list"; then
    stage_module kcov.ko KCOV=1
fi
if grep -q ' kunit$' "$stage/tests.list"; then
    stage_module kunit.ko KUNIT=1
fi
selftests=$top/build/selftests
mkdir -p "$build" "$selftests"
flock "$selftests" make -s -j"$(nproc)" -C "$top/selftests" KSRC="$("$here/kernel.sh" source)" OUT="$selftests" >&2
cp -p "$selftests"/* "$here"/guest/* "$stage/tests/"
if grep -q ' run-tests$' "$stage/tests.list"; then
    # make, and what it wants to see, as on a user's machine.
    mkdir -p "$stage/src"
    cp -a "$top/uapi" "$top/README.md" "$top/selftests" "$stage/src/"
    stage_program "$(command -v make)" bin
fi
if grep -q ' cp-reflink$' "$stage/tests.list"; then
    stage_program "$(command -v cp)" gnu
fi
if grep -q ' trinity$' "$stage/tests.list"; then
    stage_program "$(command -v trinity)" bin
fi
if grep -q ' pins$' "$stage/tests.list"; then
    # A block device for O_DIRECT.
    [ ! -e "$root/loop.ko" ] || cp "$root/loop.ko" "$stage/"
fi
cp /bin/busybox "$stage/bin/"
cp "$here/init.sh" "$stage/init"
(cd "$stage" && find . | cpio -o -H newc --quiet) >"$work/initrd"

# Add up the time of the tests; 90 s for the boot and the leak check.
budget=$(awk '{ sum += $2 } END { print sum + 90 }' "$stage/tests.list")
log=${LOG:-$build/${kernel##*/}${SHARD:+-$SHARD}.log}
mkdir -p "$(dirname "$log")"
# Whoever kills this script kills the VM.
setpriv --pdeathsig KILL timeout "${TIMEOUT:-$budget}" \
    setpriv --pdeathsig KILL qemu-system-x86_64 \
    -accel "${ACCEL:-$accel}" -cpu "$cpu" -smp 2 -m "$memory" \
    -display none -nodefaults -no-reboot \
    -kernel "$root/vmlinuz" -initrd "$work/initrd" -append "$append" \
    -serial stdio -serial "file:$work/verdict" </dev/null |
    stdbuf -oL tr -d '\r' | tee "$log" || true
status=${PIPESTATUS[0]}

say_red() {
    echo "not ok - $*" | tee -a "$log"
}

verdict=$(tr -d '\r\n' <"$work/verdict" 2>/dev/null || true)
last=$(sed -n 's/^# test: //p' "$log" | tail -n 1)
if [ -z "$verdict" ]; then
    say_red "$kernel: ${last:-boot}: the VM died or hung (status $status)"
elif [ "$(grep -c '^# time: ' "$log")" -ne "$(wc -l <"$stage/tests.list")" ]; then
    say_red "$kernel: not all tests ran; the last was $last"
fi
# A test that finds nothing to test on this kernel says why; reasons are known.
while read -r skip; do
    say_red "unexpected skip: $skip"
done < <(sed -nE 's/^ *ok .*# SKIP //p' "$log" | sort -u |
    grep -vxF -f <(awk -F'\t' -v kernel="$kernel" '$1 == kernel { print $2 }' "$here/skips.list"))
if [ "$verdict" = pass ] && ! grep -qE '^ *not ok' "$log"; then
    exit 0
fi
# The tests that failed: their TAP, or what init.sh found behind them.  What was
# found behind all of them is any of theirs.
failed=$(awk '/^# test: / { test = $3 } /^# done/ { test = "" } test && /^ *not ok/ && !seen[test]++ { print test }' "$log")
[ -n "$verdict" ] || failed+=" ${last%% *}"
read -ra failed <<<"${failed//$'\n'/ }"
for test in "${failed[@]:-all}"; do
    if [ -n "$(SHARD='' select_tests "$test")" ]; then
        echo "# rerun: make vm K=$kernel T=$test"
    else
        echo "# rerun: ${SHARD:+SHARD=$SHARD }make vm K=$kernel"
    fi
done | sort -u
exit 1
