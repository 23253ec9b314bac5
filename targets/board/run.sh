#!/usr/bin/env bash
# targets/board/run.sh PROGRAM BUNDLE [CPU [MIB]]
#
# Boots a whole emulated machine, one aarch64 core (cortex-a53) with 512 MiB unless said otherwise, that
# holds the kernel, PROGRAM (`dram`, built static for aarch64) and BUNDLE, and nothing else. It fails unless
#   - the golden examples of the bundle are the same bits as where it was packed,
#   - the bundle's answers are those of this machine's `dram` ($DRAM, or target/release/dram),
#   - a budget of the planned peak is enough, and one of half of it is refused,
#   - no measured peak passes the planned one: heap and map in the process, VmHWM as the kernel counts it.
# The emulator's clock counts instructions, the same number in every run. That is a measure of work, and
# none of time: a real core takes more or fewer cycles for each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
TARGETS_DIR=${TARGETS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dram-targets}
program=${1:?usage: targets/board/run.sh PROGRAM BUNDLE [CPU [MIB]]}
bundle=${2:?usage: targets/board/run.sh PROGRAM BUNDLE [CPU [MIB]]}
cpu=${3:-cortex-a53}
mib=${4:-512}
seq=${SEQ:-32}
text="wake me at six"
host=${DRAM:-$here/../../target/release/dram}
fail() { echo "targets/board/run.sh: $*" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
aarch64-linux-gnu-gcc -O2 -Wall -Wextra -static -s -o "$work/root/init" "$here/init.c"
aarch64-linux-gnu-strip -o "$work/root/dram" "$program"
cp "$bundle" "$work/root/model.dram"

planned=$("$host" plan "$bundle" --json | jq .peak_bytes)
# Words are set apart by tabs: a text has spaces.
command() { (IFS=$'\t' && echo "$*"); }
{
    command /dram doctor --json
    command /dram verify /model.dram --json
    command /dram run /model.dram --text "$text" --ram "$planned" --json
    command /dram run /model.dram --text "$text" --ram $((planned / 2)) --json
    command /dram bench /model.dram --seq "$seq" --seconds 0 --ram "$planned" --json
} >"$work/root/commands"
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"

timeout 600 qemu-system-aarch64 -M virt -cpu "$cpu" -m "$mib" -icount shift=0,sleep=off \
    -nodefaults -no-reboot -nographic -serial stdio \
    -kernel "$(find "$TARGETS_DIR/kernel/boot" -name 'vmlinuz-*' | sort -V | tail -1)" \
    -initrd "$work/initramfs" -append "console=ttyAMA0 quiet panic=-1" </dev/null |
    tr -d '\r' >"$work/console" || fail "the board did not run: $(tail -5 "$work/console")"
grep -q '^board: off' "$work/console" || fail "the board stopped: $(tail -20 "$work/console")"

# output_of N and ended N: what the Nth command wrote, and its exit code and VmHWM in KiB.
output_of() { awk -v n="$1" '/^board: begin/ {i++; next} /^board: end/ {next} i == n' "$work/console" | grep -m1 '^[[{]'; }
ended() { sed -n 's/^board: end //p' "$work/console" | sed -n "$1p"; }
for command in 1:0 2:0 3:0 4:1 5:0; do
    read -r code _ <<<"$(ended "${command%:*}")"
    [ "$code" = "${command#*:}" ] || fail "command ${command%:*} ended with $code: $(cat "$work/console")"
done

output_of 2 | jq -e '.golden.worst_difference == 0' >/dev/null || fail "other bits than where it was packed: $(output_of 2)"
expected=$("$host" run "$bundle" --text "$text" --json)
[ "$(output_of 3)" = "$expected" ] || fail "answers $(output_of 3), this machine $expected"

read -r _ resident_kib <<<"$(ended 3)"
allowed=$((planned + $(stat -c %s "$work/root/dram")))
[ $((resident_kib * 1024)) -le "$allowed" ] || fail "VmHWM is $resident_kib KiB, planned with the program: $((allowed / 1024))"
bench=$(output_of 5)
jq -e '.peak_heap_bytes <= .planned_peak_bytes' <<<"$bench" >/dev/null || fail "a peak above the planned one: $bench"

jq -rn --arg cpu "$cpu" --arg mib "$mib" --arg memory "$(sed -n 's/^board: MemTotal: *//p' "$work/console")" \
    --argjson doctor "$(output_of 1)" --argjson bench "$bench" \
    --argjson resident "$resident_kib" --argjson program "$(stat -c %s "$work/root/dram")" '
    def mib: . / 1048576 * 10 | round / 10 | "\(.) MiB";
    "board          \($cpu), \($mib) MiB (\($memory) after the kernel), emulated; kernels \($doctor.kernels)",
    "planned peak   \($bench.planned_peak_bytes | mib), program \($program | mib)",
    "measured peak  heap and map \($bench.peak_heap_bytes | mib); VmHWM of one answer \($resident * 1024 | mib)",
    "instructions   \($bench.median_ms * 10 | round / 10) million for \($bench.seq) tokens, \($bench.cold_start_ms | round) million from start to first answer"'
