#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# PID 1 of the test VM.
#
# Runs /tests.list, a line a test: "MODULE SECONDS COMMAND...", where MODULE is
# cowmem, amplify, tall, kcov or - (none).  The module is loaded before and unloaded
# after each test; a test that leaves a page, a node or a warning behind has failed.
# Last of all, one word goes to the second serial port: pass or fail.
/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /tmp /etc /root
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/tests HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs shm /dev/shm
mount -t debugfs debug /sys/kernel/debug 2>/dev/null
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
mkdir -p /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
ln -s /proc/self/fd /dev/fd 2>/dev/null
ip link set lo up 2>/dev/null
echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh' >/etc/passwd

[ -f /loop.ko ] && insmod /loop.ko
# Leaks are looked for when all is done: not now and then, on one of two CPUs.
[ -f /sys/kernel/debug/kmemleak ] && echo scan=off >/sys/kernel/debug/kmemleak 2>/dev/null

verdict=pass
params=/sys/module/cowmem/parameters

fail() {
    echo "not ok - $*"
    verdict=fail
}

# What the kernel said since the last call and should not have: splats, anything
# of ours, and (but for a test that causes an OOM kill or a memory error and says so) all of
# warning level and above.  That the module taints the kernel is expected, and so
# is that an emulated CPU on a busy machine is slow.  Of KCSAN's reports, which name
# two functions, those count that name one of a module.
kernel_complaints() {
    splat='KASAN|UBSAN|BUG:|WARNING:|INFO: |[Bb]ad page|cowmem: '
    [ -f /tmp/expect-noise ] || [ -f /sys/kernel/debug/kcsan ] || splat="^<[0-4]>|$splat"
    dmesg -r | tail -n +$((seen + 1)) >/tmp/dmesg.new
    seen=$((seen + $(wc -l </tmp/dmesg.new)))
    grep -E "$splat" /tmp/dmesg.new | grep -vE 'taint|module verification|Test should be marked slow|clocksource:|hrtimer: interrupt took|KCSAN: data-race in [^[]*$' >/tmp/complaints
}

# Kernel threads put the last reference to a closed file a little later, or more
# than a little on a slow machine.
try() {
    for _ in $(seq 100); do
        "$@" && return 0
        usleep 100000
    done
    return 1
}

is_empty() {
    [ "$(cat $params/pages) $(cat $params/nodes)" = "0 0" ]
}

load() {
    case $1 in
    -) ;;
    *) insmod "/$1.ko" ;;
    esac
}

unload() {
    [ "$1" = - ] && return 0
    try rmmod cowmem 2>/tmp/rmmod && return 0
    tail -n 1 /tmp/rmmod
    return 1
}

run() {
    module=$1 seconds=$2
    shift 2
    name=$*
    case $module in amplify|tall|kcov) name="$name ($module)" ;; esac
    start=$(cut -d' ' -f1 /proc/uptime)
    echo "# test: $name"
    rm -f /tmp/expect-noise
    load "$module" || { fail "$name: insmod"; return; }
    # By its path: busybox has a diff and a fallocate of its own.
    command=$1
    shift
    timeout -s KILL "$seconds" "/tests/$command" "$@" 2>&1 </dev/null
    code=$?
    case $code in
    0|4) ;;
    137) fail "$name: no end after $seconds s" ;;
    *)   fail "$name: exit status $code" ;;
    esac
    if [ "$module" != - ]; then
        try is_empty || fail "$name: leak: $(cat $params/pages) pages, $(cat $params/nodes) nodes"
    fi
    unload "$module" || fail "$name: rmmod"
    if kernel_complaints; then
        cat /tmp/dmesg.new
        fail "$name: kernel log: $(head -n 3 /tmp/complaints)"
    fi
    echo "# time: $name: $(cut -d' ' -f1 /proc/uptime | awk -v s="$start" '{ printf "%.1f", $1 - s }') s"
}

# What the module allocated and never gave back, and whether the checkers still
# check, if this kernel has them.
leaks() {
    # The module is gone, and with it its symbols: what it called is below an
    # address without a name.  No other module has been loaded here.
    nameless='^ +0x[0-9a-f]{16}$'
    if grep -q kmemleak=on /proc/cmdline; then
        echo "# test: kmemleak"
        # Twice: an object has to stay unreachable to count.
        if echo scan >/sys/kernel/debug/kmemleak && sleep 5 &&
            echo scan >/sys/kernel/debug/kmemleak; then
            grep -E -B 15 "$nameless" /sys/kernel/debug/kmemleak && fail "kmemleak" || echo "ok - kmemleak"
        else
            fail "kmemleak is not on"
        fi
    fi
    if grep -q page_owner=on /proc/cmdline; then
        echo "# test: page_owner"
        # But for pages that the slab allocator, or a checker, got for itself, and
        # the page directories of address spaces that KUnit never gives back.
        # (By cat: a read that is too short for an entry fails.)
        cat /sys/kernel/debug/page_owner |
            awk -v RS= '/\n +0x[0-9a-f]+(\n|$)/ && !/slab|stack_depot|kmemleak|kunit_vm_mmap_init/ { print $0 "\n" }
                END { if (NR < 1000) print "only " NR " pages have an owner" }' >/tmp/pages
        head -n 40 /tmp/pages
        [ -s /tmp/pages ] && fail "page_owner" || echo "ok - page_owner"
    fi
    if [ -f /proc/lockdep_stats ]; then
        echo "# test: lockdep"
        grep -q 'debug_locks: *1$' /proc/lockdep_stats && echo "ok - lockdep" || fail "lockdep has turned itself off"
    fi
}

seen=$(dmesg -r | wc -l)
echo "# kernel $(uname -r), $(nproc) CPUs"
[ "$(nproc)" -eq 2 ] || fail "one CPU: nothing races"
while read -r line; do
    [ -n "$line" ] && run $line
done </tests.list
leaks
echo "# done"
sync
echo $verdict >/dev/ttyS1
# Let the serial port drain.
usleep 200000
poweroff -f
