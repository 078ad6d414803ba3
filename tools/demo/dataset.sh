#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# usage: dataset.sh MOST >FILE
#
# The machine's own package index, or if there is none the list of what is
# installed, as text for mdb_load: at most MOST packages, and the accounts of
# ledger.h.
set -eu
export LC_ALL=C

most=$1
accounts=$(awk '$2 == "NR_ACCOUNTS" { print $3 }' "$(dirname "$0")/ledger.h")

# Stanzas of "Field: value".
packages() {
    apt-cache dumpavail 2>/dev/null || true
    cat /var/lib/dpkg/status
    echo
}

# The database grows to a few times the data while snapshots keep old pages.
cat <<END
VERSION=3
format=print
type=btree
mapsize=268435456
HEADER=END
END
packages | awk -v most="$most" -v accounts="$accounts" '
    function emit() {
        if (name != "" && !(name in seen) && count < most) {
            seen[name] = 1
            count++
            printf " %s\n 000000 %s %s KiB: %s\n", name, version, kib, text
        }
        if (count == most)
            exit
        name = version = kib = text = ""
    }
    # mdb_load takes it for the start of a code.
    { gsub(/\\/, "/") }
    /^Package: /        { name = $2 }
    /^Version: /        { version = $2 }
    /^Installed-Size: / { kib = $2 }
    /^Description: /    { text = substr($0, 14) }
    /^$/                { emit() }
    END {
        for (i = 0; i < accounts; i++)
            printf " %c#account\n %010d %07d\n", 97 + i, 0, 1000
    }'
echo DATA=END
