#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# PID 1 of the demo's VM: load the module, run the demo, see that nothing is left
# behind.  One word goes to the second serial port: pass or fail.
/bin/busybox mkdir -p /proc /sys /dev /tmp /envs
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs envs /envs

verdict=pass
params=/sys/module/cowmem/parameters

fail() {
    echo "   FAILED: $*"
    verdict=fail
}

# Kernel threads put the last reference to a closed file a little later, or more
# than a little on a slow machine.
try() {
    for _ in $(seq 100); do
        "$@" 2>/dev/null && return 0
        usleep 100000
    done
    return 1
}

is_empty() {
    [ "$(cat $params/pages) $(cat $params/nodes)" = "0 0" ]
}

memory() {
    awk '/^MemTotal/ { printf "%d MiB", $2 / 1024 }' /proc/meminfo
}

echo "VM: stock Debian kernel $(uname -r), $(nproc) CPUs, $(memory); insmod cowmem.ko"
seen=$(dmesg -r | wc -l)
insmod /cowmem.ko || fail "insmod"

demo /dataset || fail "demo: exit status $?"

if [ $verdict = pass ]; then
    echo "7. What a snapshot costs beside fork() of a process with the same memory."
    echo "   Its cost grows with the pages written since the last one, fork's with all pages. Medians,"
    echo "   taken in turns in one process; the CPU is emulated, so look at ratios."
    compare 4 256 || fail "compare: exit status $?"
fi

echo "8. Everything is closed; the module is unloaded."
try is_empty || fail "$(cat $params/pages) pages, $(cat $params/nodes) nodes are left"
echo "   Left of all buffers: $(cat $params/pages) pages, $(cat $params/nodes) index nodes."
try rmmod cowmem || fail "rmmod: the module is still in use"
# Not all warnings: a busy host makes clocks stutter.
complaints=$(dmesg -r | tail -n +$((seen + 1)) |
    grep -E '^<[0-3]>|BUG:|WARNING:|cowmem: ' | grep -vE 'taint|module verification')
[ -z "$complaints" ] || fail "kernel log: $complaints"

echo $verdict >/dev/ttyS1
# Let the serial port drain.
usleep 200000
poweroff -f
