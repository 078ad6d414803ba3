#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Every command in README.md is run by a test: by which, is said here.  A command
# that the README gains, or loses, turns this red.
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
status=0

# command|test
known="make run|demo.sh
make check|check.sh
make && sudo insmod module/cowmem.ko|here, and each VM test
sudo make -C selftests run_tests|guest/run-tests
sudo dkms add .|dkms.sh
sudo dkms install cowmem/0.1.0|dkms.sh
sudo modprobe cowmem|here (depmod and modprobe find it), and each VM test
gcc -Iuapi example.c -o example|selftests/Makefile, guest/readme-example"

while read -r command; do
    if cut -d'|' -f1 <<<"$known" | grep -qxF "$command"; then
        echo "ok - README command has a test: $command"
    else
        echo "not ok - README command without a test: $command"
        status=1
    fi
done < <(sed -n '/^```sh$/,/^```$/{/^```/!p}' "$top/README.md")
while IFS='|' read -r command _; do
    grep -qxF "$command" "$top/README.md" ||
        { echo "not ok - README has lost: $command"; status=1; }
done <<<"$known"

# The build of a user, in the tree as it is, with KDIR in place of the headers
# of the running kernel.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -a "$top/Kbuild" "$top/Makefile" "$top/dkms.conf" "$top/module" "$top/uapi" "$work/"
root=$("$here/kernel.sh" 6.12)
release=$(cat "$root/release")
if make -s -C "$work" KDIR="$root/build" >"$work/log" 2>&1 && [ -e "$work/module/cowmem.ko" ]; then
    echo "ok - make"
else
    cat "$work/log"
    echo "not ok - make"
    status=1
fi
mkdir -p "$work/lib/modules/$release/updates/dkms"
cp "$work/module/cowmem.ko" "$work/lib/modules/$release/updates/dkms/"
touch "$work/lib/modules/$release/modules."{order,builtin}
/sbin/depmod -b "$work" "$release"
if /sbin/modprobe -d "$work" -S "$release" -n -v cowmem | grep -q cowmem.ko; then
    echo "ok - modprobe finds it"
else
    echo "not ok - modprobe does not find it"
    status=1
fi
for file in $(sed -n '/^## Where/,/^## Limits/s/^| \(.*\) |.*|$/\1/p' "$top/README.md" | grep -o '`[^`]*`' | tr -d '`'); do
    case $file in /*|cowmem:*|make) continue ;; esac
    [ -e "$top/$file" ] || { echo "not ok - README names $file"; status=1; }
done
exit $status
