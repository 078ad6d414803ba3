#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: bench.sh
#
# Boot the stock 6.12 kernel and run tools/bench in it, on the module as it is
# and on one with the other fan-out of the tree.
#
#	ACCEL		QEMU's accelerator, as in run.sh
#	ICOUNT		not empty: one CPU whose clock counts instructions, one as a
#			nanosecond, so that what is printed as us are thousands of
#			instructions, and the same each time
#	FANOUTS		only those (default 64,512)
#	TIMEOUT		seconds until the VM counts as hung
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
out=$top/build/bench
mkdir -p "$out"
for program in bench algebra; do
    gcc -O2 -Wall -D_GNU_SOURCE -static -I"$top/uapi" "$top/tools/bench/$program.c" -o "$out/$program"
done
ko=$("$here/build.sh" 6.12)
cp "$ko" "$out/fanout-64.ko"
ko=$("$here/build.sh" 6.12 NODE_SHIFT=9)
cp "$ko" "$out/fanout-512.ko"
cat >"$out/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for fanout in $(/bin/busybox echo "$FANOUTS" | /bin/busybox tr , " "); do
    echo
    echo "=== Tree with $fanout slots a node ==="
    /bin/busybox insmod /fanout-$fanout.ko && /bench && /algebra || echo FAILED
    /bin/busybox rmmod cowmem || echo FAILED
done
/bin/busybox echo done >/dev/ttyS1
/bin/busybox usleep 200000
/bin/busybox poweroff -f
INIT
chmod +x "$out/init"
mkdir -p "$out/bin"
cp /bin/busybox "$out/bin/"
rm -f "$out/initrd" "$out/verdict"
(cd "$out" && printf '%s\n' init bench algebra bin bin/busybox fanout-64.ko fanout-512.ko |
    cpio -o -H newc --quiet) >"$out/initrd"
root=$("$here/kernel.sh" 6.12)
machine=(-accel "${ACCEL:-tcg,thread=multi}" -cpu max -smp 2)
# String instructions would count once for each byte.
[ -z "${ICOUNT:-}" ] || machine=(-accel tcg -icount shift=0,sleep=off -cpu max,-erms,-la57 -smp 1)
timeout "${TIMEOUT:-1800}" qemu-system-x86_64 "${machine[@]}" -m 7168 \
    -display none -nodefaults -no-reboot \
    -kernel "$root/vmlinuz" -initrd "$out/initrd" \
    -append "console=ttyS0 quiet panic=-1 panic_on_warn=1 oops=panic tsc=nowatchdog FANOUTS=${FANOUTS:-64,512}" \
    -serial stdio -serial "file:$out/verdict" </dev/null | stdbuf -oL tr -d '\r' | tee "$out/results.txt"
[ "$(tr -d '\r\n' <"$out/verdict")" = done ] && ! grep -q FAILED "$out/results.txt"
