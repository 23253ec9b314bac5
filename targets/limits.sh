#!/usr/bin/env bash
# Runs a bundle where barely more memory can be had than its plan says: in a control group (version 1 or 2) with swap
# off. Needs the right to make one; the tests do the same with an address space (`tests/tests/memory.rs`).
#
#     targets/limits.sh target/release/dram models/zoo/intents.dram [MIB BESIDE]
#
# Beside the plan, 4 MiB unless said otherwise: stacks, the kernel's tables, and the pages of program and libraries,
# as far as nobody else has them in memory.
set -euo pipefail
dram=$1 bundle=$2 beside=${3:-4}
planned=$("$dram" --json plan "$bundle" | sed 's/.*"peak_bytes":\([0-9]*\).*/\1/')
limit=$((planned + (beside << 20)))
echo "$bundle: planned $planned bytes, limit $limit"

group= copy=$(mktemp)
trap 'rm -f "$copy"; [ -z "$group" ] || rmdir "$group"' EXIT
# make FOLDER FILE=VALUE...: a group with these limits.
make() {
    mkdir "$1" 2>/dev/null || return 1
    group=$1
    shift
    for setting in "$@"; do
        echo "${setting#*=}" 2>/dev/null >"$group/${setting%%=*}" || return 1
    done
    # A process of our own that could not enter would be limited by nothing.
    (echo "$BASHPID" >"$group/cgroup.procs") 2>/dev/null
}
name=dram-limits-$$
# In version 1, memory and swap together: nothing can be swapped out.
if make "/sys/fs/cgroup/memory/$name" "memory.limit_in_bytes=$limit" "memory.memsw.limit_in_bytes=$limit"; then
    peak=memory.max_usage_in_bytes
elif [ -z "$group" ] && make "/sys/fs/cgroup/$name" "memory.max=$limit" "memory.swap.max=0"; then
    peak=memory.peak
else
    echo "SKIPPED: no control group with such limits can be made here"
    exit 0
fi
# A copy that the group itself makes, so that the pages of the file are its own too.
sh -c 'echo $$ >"$0/cgroup.procs"; cp "$1" "$2"; sync "$2"; shift 2; exec "$@"' "$group" "$bundle" "$copy" \
    "$dram" --json bench "$copy" --first-answer --ram "$planned"
echo "answered; $(cat "$group/$peak" 2>/dev/null || echo unknown) bytes at the highest"
