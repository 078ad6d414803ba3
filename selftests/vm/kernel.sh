#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: kernel.sh 6.1 | 6.12 | 7 | debug | kcsan | source | DIRECTORY
#
# Print the directory of a kernel, made if it is not there:
#
#	vmlinuz		to boot
#	build/		to build modules against
#	release		its version string
#	loop.ko		block devices in files, for tests (debug, kcsan: built in)
#	usr/		if there is a make in it: what to build modules with
#
# 6.1 and 6.12 are Debian's own, unpacked, not installed: what this machine boots
# is none of our business.  7 is the newest one of Debian 13's backports, as of when
# it was first asked for, with the compiler and the libraries that it needs.  debug
# and kcsan are built from Debian's linux-source-6.12 with debug.config and
# kcsan.config (8 to 15 minutes each on 2 cores), source is that source.  A directory,
# which has a / in its name, is any other kernel: one that has the first three of
# these.
# Everything is kept in $COWMEM_CACHE (default ~/.cache/cowmem).
set -eu
# A command that fails inside $(...) as well.
shopt -s inherit_errexit

here=$(dirname "$(realpath "$0")")
cache=${COWMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cowmem}
name=$1
# What else to tell apt: nothing, for packages of this machine's suite.
apt=()
mkdir -p "$cache"

say() {
    echo "kernel.sh: $*" >&2
}

# The newest package that a meta-package stands for.
depends() {
    local found
    found=$(apt-cache "${apt[@]}" depends "$1" 2>/dev/null |
        sed -n "s/^ *Depends: \($2[^ ]*\)$/\1/p" | head -n 1)
    if [ -z "$found" ]; then
        say "apt knows no $1: run apt-get update?"
        exit 1
    fi
    echo "$found"
}

# download DIR PACKAGE...: unpack Debian packages into DIR.
download() {
    local dir=$1 debs
    shift
    debs=$(mktemp -d "$cache/debs.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$debs'" EXIT
    chmod 755 "$debs"
    (
        cd "$debs"
        fetch=(apt-get -qq -o APT::Sandbox::User=root download)
        # Lists that are older than what the archive has name what is gone.
        "${fetch[@]}" "$@" || { apt-get update -qq; "${fetch[@]}" "$@"; }
    ) >&2
    for deb in "$debs"/*.deb; do
        dpkg-deb -x "$deb" "$dir"
    done
    rm -rf "$debs"
}

# cached PATTERN FILE: the newest that is complete, or nothing.
cached() {
    find "$cache" -path "$cache/$1/$2" -printf '%h\n' | sort -V | tail -n 1
}

# known PACKAGE: does apt know it, if need be after asking the archive?
known() {
    apt-cache show "$1" >/dev/null 2>&1 && return
    apt-get update -qq >&2 || true
    apt-cache show "$1" >/dev/null 2>&1
}

# Modules are most of a kernel; last of all, so that all is there if loop.ko is.
drop_modules() {
    local root=$1 loop
    loop=$(find "$root" -path '*/drivers/block/loop.ko*')
    if [ "${loop%.xz}" != "$loop" ]; then
        xz -d "$loop"
    fi
    mv "${loop%.xz}" "$root/loop.tmp"
    rm -rf "$root/lib/modules" "$root/usr/lib/modules"
    mv "$root/loop.tmp" "$root/loop.ko"
}

stock() {
    local meta=$1 series=$2 image headers release kbuild root
    # Without lists and without a network: what there is will do.
    if ! known "linux-image-$meta"; then
        cached "stock-$series.*" loop.ko | grep .
        return
    fi
    image=$(depends "linux-image-$meta" linux-image-)
    release=${image#linux-image-}
    root=$cache/stock-$release
    if [ ! -e "$root/loop.ko" ]; then
        say "unpacking Debian's $release"
        rm -rf "$root"
        headers=linux-headers-$release
        common=$(depends "$headers" 'linux-headers-.*-common')
        kbuild=$(depends "$headers" linux-kbuild-)
        download "$root" "$image" "$headers" "$common" "$kbuild"
        # The one absolute path in the headers package.
        sed -i "s| /usr/src/| $root/usr/src/|" \
            "$root/usr/src/linux-headers-$release/Makefile"
        ln -s "usr/src/linux-headers-$release" "$root/build"
        ln -s "boot/vmlinuz-$release" "$root/vmlinuz"
        echo "$release" >"$root/release"
        drop_modules "$root"
    fi
    echo "$root"
}

# Where this machine gets Debian from.
archive() {
    local codename
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    apt-get indextargets --format '$(REPO_URI)' "Release: $codename" \
        "Component: main" "Created-By: Packages" | head -n 1
}

# other_suite SUITE DIR: from here on, apt is about another suite of Debian and its
# backports, keeps all that it keeps in DIR, and thinks that nothing is installed.
other_suite() {
    local suite=$1 dir=$2 part uri
    uri=$(archive)
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    touch "$dir/status"
    for part in "$suite" "$suite-backports"; do
        echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
            "$uri $part main"
    done >"$dir/sources.list"
    apt=(-o "Dir::State=$dir" -o "Dir::State::status=$dir/status"
        -o "Dir::Cache=$dir" -o "Dir::Etc::SourceList=$dir/sources.list"
        -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null
        -o Dir::Etc::PreferencesParts=/dev/null -o APT::Sandbox::User=root
        -o "APT::Default-Release=$suite-backports")
    apt-get -qq "${apt[@]}" update >&2
}

# backport SUITE SERIES: from the backports to a suite, with what builds modules.
backport() {
    local suite=$1 series=$2 root work image release packages
    root=$(cached "stock-$series.*" loop.ko)
    if [ -z "$root" ]; then
        work=$(mktemp -d "$cache/debs.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$work'" EXIT
        other_suite "$suite" "$work"
        image=$(depends linux-image-amd64 "linux-image-$series\.")
        release=${image#linux-image-}
        root=$cache/stock-$release
        say "unpacking Debian's $release and its compiler"
        rm -rf "$root"
        packages=("linux-binary-$release" "linux-modules-$release"
            "linux-headers-$release")
        # What Kbuild runs, besides what these depend on.
        packages+=(binutils make bash dash coreutils findutils grep mawk sed)
        apt-get -qq "${apt[@]}" --no-install-recommends --download-only -y \
            install "${packages[@]}" >&2
        for deb in "$work"/archives/*.deb; do
            dpkg-deb -x "$deb" "$root"
        done
        ln -s mawk "$root/usr/bin/awk"
        ln -s "usr/src/linux-headers-$release" "$root/build"
        mv "$root/usr/lib/modules/$release/vmlinuz" "$root/vmlinuz"
        echo "$release" >"$root/release"
        rm -rf "$root/usr/share"
        drop_modules "$root"
    fi
    echo "$root"
}

source_tree() {
    local root version
    if ! known linux-source-6.12; then
        cached 'source-6.12*' done | grep .
        return
    fi
    version=$(apt-cache policy linux-source-6.12 |
        sed -n 's/^ *Candidate: //p')
    root=$cache/source-$version
    if [ ! -e "$root/done" ]; then
        say "unpacking linux-source-6.12 $version"
        rm -rf "$root"
        mkdir -p "$root"
        download "$root" linux-source-6.12
        tar -C "$root" --strip-components=1 -xf \
            "$root/usr/src/linux-source-6.12.tar.xz"
        rm -rf "$root/usr/src" "$root/usr/share"
        touch "$root/done"
    fi
    echo "$root"
}

# built NAME: with NAME.config.
built() {
    local source config root hash
    # By a process of its own, for its lock.
    source=$("$0" source)
    config=$(cat "$here/machine.config" "$here/$1.config")
    hash=$( (basename "$source"; echo "$config"; gcc --version) | sha256sum | cut -c1-12)
    root=$cache/$1-$hash
    if [ ! -e "$root/done" ]; then
        say "building the $1 kernel in $root (8 to 15 minutes on 2 cores)"
        rm -rf "$root"
        mkdir -p "$root/build"
        echo "$config" >"$root/config"
        make -s -C "$source" O="$root/build" KCONFIG_ALLCONFIG="$root/config" \
            allnoconfig >&2
        while read -r line; do
            grep -qxF "$line" "$root/build/.config" || {
                say "$1.config: $line has no effect"
                exit 1
            }
        done < <(grep '^CONFIG_' "$root/config")
        make -s -C "$root/build" -j"$(($(nproc) + 1))" bzImage modules >&2
        ln -s build/arch/x86/boot/bzImage "$root/vmlinuz"
        make -s -C "$root/build" kernelrelease >"$root/release"
        touch "$root/done"
    fi
    echo "$root"
}

# One at a time: two runs may want the same one.
exec 9>"$cache/lock-${name##*/}"
flock 9

case $name in
6.1)	stock amd64 6.1 ;;
6.12)	stock 6.12-amd64 6.12 ;;
7)	backport trixie 7 ;;
debug|kcsan)
	built "$name" ;;
source)	source_tree ;;
*/*)
    realpath "$name"
    ;;
*)
    say "unknown kernel $name: 6.1, 6.12, 7, debug, kcsan, source or a directory"
    exit 1
    ;;
esac
