#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: demo.sh
#
# The demo: boot Debian's kernel 6.12 in QEMU, load the module and let unmodified
# LMDB work on a cowmem buffer, with this machine's package index as data, while
# snapshots of it are taken.  See tools/demo/demo.c and init.sh there.  Exit
# status 0: all checks passed.
#
#	ACCEL		QEMU's accelerator, as in run.sh
#	TIMEOUT		seconds until the VM counts as hung
#	RECORDS		at most so many packages (default 10000)
#	COWMEM_BUILD	where to build (default: build/ in this tree)
#	DEMO_BREAK	not empty: a writer that breaks its own rules, which has
#			to make the demo fail
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
build=${COWMEM_BUILD:-$top/build}
export COWMEM_BUILD=$build

# compile PROGRAM LIBRARY...
compile() {
    local program=$1
    shift
    gcc -std=gnu11 -O2 -Wall -Wextra -Wno-unused-parameter \
        -Wno-missing-field-initializers -Wno-unused-function -D_GNU_SOURCE \
        -I"$top/uapi" -I"$top/selftests" -o "$stage/bin/$program" \
        "$top/tools/demo/$program.c" "$@"
}

# Programs of this machine, and the libraries that all in bin/ need.
copy_programs() {
    local program
    for program in busybox mdb_load mdb_stat mdb_dump; do
        cp "$(command -v "$program")" "$stage/bin/"
    done
    for program in "$stage"/bin/*; do
        ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true
    done | sort -u | while read -r library; do
        cp -L --parents "$library" "$stage"
    done
}

echo "cowmem demo: preparing a VM"
root=$("$here/kernel.sh" 6.12)
module=$("$here/build.sh" 6.12)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
mkdir -p "$stage/bin"
cp "$module" "$stage/"
compile demo "$top/tools/demo/env.c"
compile verify
compile compare
compile writer -llmdb
copy_programs
"$top/tools/demo/dataset.sh" "${RECORDS:-10000}" >"$stage/dataset"
cp "$top/tools/demo/init.sh" "$stage/init"
(cd "$stage" && find . | cpio -o -H newc --quiet) >"$work/initrd"

append="console=ttyS0 quiet panic=-1 panic_on_warn=1 oops=panic random.trust_cpu=on tsc=nowatchdog no_timer_check"
# The kernel hands what it does not know to init, as a variable.
[ -z "${DEMO_BREAK:-}" ] || append+=" DEMO_BREAK=1"
timeout "${TIMEOUT:-900}" qemu-system-x86_64 \
    -accel "${ACCEL:-tcg,thread=multi}" -cpu max,-erms -smp 2 -m 1536 \
    -display none -nodefaults -no-reboot \
    -kernel "$root/vmlinuz" -initrd "$work/initrd" -append "$append" \
    -serial stdio -serial "file:$work/verdict" </dev/null |
    sed -u 's/\r//g; /reboot: Power down/d' || true

case $(tr -d '\r\n' <"$work/verdict" 2>/dev/null) in
pass)
    echo "demo: all checks passed"
    ;;
fail)
    echo "demo: a check has failed, see above" >&2
    exit 1
    ;;
*)
    echo "demo: the VM died or hung; see above" >&2
    exit 1
    ;;
esac
