#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Every command in README.md is run by a test: by which, is said here.  A command
# that the README gains, or loses, turns this red.
set -eu

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
work=$(realpath "$(mktemp -d)")
trap 'rm -rf "$work"' EXIT
status=0

# check NAME COMMAND...
check() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok - $name"
    else
        cat "$work/log"
        echo "not ok - $name"
        status=1
    fi
}

# command|test
known='make run|demo.sh
make check|check.sh
make && sudo insmod module/cowmem.ko|here, and each VM test
sudo make -C selftests run_tests|here, guest/run-tests
sudo dkms add .|dkms.sh
(. ./dkms.conf && sudo dkms install "$PACKAGE_NAME/$PACKAGE_VERSION")|here, dkms.sh
sudo modprobe cowmem|here (depmod and modprobe find it), and each VM test
gcc -Iuapi example.c -o example|selftests/Makefile, guest/readme-example'

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
cp -a "$top/Kbuild" "$top/Makefile" "$top/README.md" "$top/dkms.conf" "$top/module" \
    "$top/selftests" "$top/uapi" "$work/"
root=$("$here/kernel.sh" 6.12)
release=$(cat "$root/release")
check "make" make -s -C "$work" KDIR="$root/build"
mkdir -p "$work/lib/modules/$release/updates/dkms"
cp "$work/module/cowmem.ko" "$work/lib/modules/$release/updates/dkms/"
touch "$work/lib/modules/$release/modules."{order,builtin}
/sbin/depmod -b "$work" "$release"
modprobe_finds_it() {
    /sbin/modprobe -d "$work" -S "$release" -n -v cowmem | grep cowmem.ko
}
check "modprobe finds it" modprobe_finds_it

# dkms.conf is the one place that holds the version.
version=$(/sbin/modinfo -F version "$work/module/cowmem.ko")
dkms_conf_has_it() {
    (cd "$work" && bash -uc 'kernel_source_dir=; . ./dkms.conf && echo "$PACKAGE_NAME/$PACKAGE_VERSION"') |
        grep -xF "cowmem/$version"
}
nobody_else_has_it() {
    ! grep -rnwF --exclude=dkms.conf "$version" "$top"/{README.md,Makefile,Kbuild,module,selftests,tools,uapi}
}
check "dkms.conf has the version of the module" dkms_conf_has_it
check "and nothing else has" nobody_else_has_it

# run_tests: all programs that VMs run, each of which it compiles.
programs_listed() {
    while read -r kernels _ _ _ command _; do
        case $kernels in ''|'#'*) continue ;; esac
        [ -e "$here/guest/$command" ] || echo "$command"
    done <"$here/tests.list" | sort -u
}
make -n -C "$work/selftests" run_tests KSRC=/none OUT=/out >"$work/run_tests"
sed -n 's/.*for test in \(.*\); do.*/\1/p' "$work/run_tests" | tr ' ' '\n' | sort >"$work/run"
sed -n 's/.* -o \/out\/\([a-z]*\) .*/\1/p' "$work/run_tests" | sort >"$work/compiled"
check "run_tests runs the programs of tests.list" diff <(programs_listed) "$work/run"
check "run_tests compiles what it runs" diff <(comm -12 "$work/compiled" "$work/run") "$work/run"
# With settings that nobody has touched.
check "one of them compiles" make -s -C "$work/selftests" "$work/build/selftests/abi"

for file in $(sed -n '/^## Where/,/^## Limits/s/^| \(.*\) |.*|$/\1/p' "$top/README.md" | grep -o '`[^`]*`' | tr -d '`'); do
    case $file in /*|cowmem:*|make) continue ;; esac
    [ -e "$top/$file" ] || { echo "not ok - README names $file"; status=1; }
done
exit $status
