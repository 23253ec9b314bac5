#!/usr/bin/env bash
# targets/board/run.sh PROGRAM BUNDLE [CPU [MIB]]
#
# Boots a whole emulated machine, one aarch64 core (cortex-a53) with 512 MiB unless said otherwise, that
# holds the kernel, PROGRAM (`dram`, built static for aarch64 or armv7) and BUNDLE, and nothing else. It
# fails unless
#   - the golden examples of the bundle are what they were where it was packed: the same bits, or within the
#     tolerance of `dram verify` where tract runs a part of it,
#   - the answer to a text, where it takes one and all of it runs on our kernels, is to the byte that of this
#     machine's `dram` ($DRAM, or target/release/dram),
#   - a budget of the planned peak is enough, and one of half of it is refused,
#   - no measured peak passes the planned one: heap and map in the process, VmHWM as the kernel counts it,
#   - BUNDLE takes no more instructions than $F32, where that names the same model in f32.
# The emulator's clock counts instructions, the same number in every run. That is a measure of work, and
# none of time: a real core takes more or fewer cycles for each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
TARGETS_DIR=${TARGETS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dram-targets}
program=${1:?usage: targets/board/run.sh PROGRAM BUNDLE [CPU [MIB]]}
bundle=${2:?usage: targets/board/run.sh PROGRAM BUNDLE [CPU [MIB]]}
cpu=${3:-cortex-a53}
mib=${4:-512}
text="wake me at six"
host=${DRAM:-$here/../../target/release/dram}
fail() { echo "targets/board/run.sh: $*" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
aarch64-linux-gnu-gcc -O2 -Wall -Wextra -static -s -o "$work/root/init" "$here/init.c"
# The fifth byte of a program says whether it is one of 32 bits.
case $(od -An -tu1 -j4 -N1 "$program") in
*1) tools=arm-linux-gnueabihf bits=32 ;;
*) tools=aarch64-linux-gnu bits=64 ;;
esac
"$tools-strip" -o "$work/root/dram" "$program"
cp "$bundle" "$work/root/model.dram"
[ -z "${F32:-}" ] || cp "$F32" "$work/root/f32.dram"

planned=$("$host" plan "$bundle" --json | jq .peak_bytes)
manifest=$("$host" inspect "$bundle" --json | jq -c .manifest)
# Tokens of the texts that are counted; what takes no sequences has one shape.
seq=$(jq --argjson tokens "${SEQ:-32}" '.sequences | if length > 0 then $tokens else empty end' <<<"$manifest")
if [ "$(jq .tokenizer <<<"$manifest")" = null ]; then
    answer=(/dram verify /model.dram)
else
    answer=(/dram run /model.dram --text "$text")
fi
# Words are set apart by tabs: a text has spaces.
command() { (IFS=$'\t' && echo "$*"); }
{
    command /dram doctor --json
    command /dram verify /model.dram --json
    command "${answer[@]}" --ram "$planned" --json
    command "${answer[@]}" --ram $((planned / 2)) --json
    command /dram bench /model.dram ${seq:+--seq "$seq"} --seconds 0 --ram "$planned" --json
    [ -z "${F32:-}" ] || command /dram bench /f32.dram ${seq:+--seq "$seq"} --seconds 0 --json
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
for command in 1:0 2:0 3:0 4:1 5:0 ${F32:+6:0}; do
    read -r code _ <<<"$(ended "${command%:*}")"
    [ "$code" = "${command#*:}" ] || fail "command ${command%:*} ended with $code: $(cat "$work/console")"
done

output_of 2 | jq -e '.verified and (.executor != "kernels" or .golden.worst_difference == 0)' >/dev/null ||
    fail "other bits than where it was packed: $(output_of 2)"
if [ "$(output_of 2 | jq -r .executor)" = kernels ]; then
    expected=$("$host" "${answer[@]:1:1}" "$bundle" "${answer[@]:3}" --json)
    [ "$(output_of 3)" = "$expected" ] || fail "answers $(output_of 3), this machine $expected"
fi

read -r _ resident_kib <<<"$(ended 3)"
allowed=$((planned + $(stat -c %s "$work/root/dram")))
[ $((resident_kib * 1024)) -le "$allowed" ] || fail "VmHWM is $resident_kib KiB, planned with the program: $((allowed / 1024))"
bench=$(output_of 5)
jq -e '.peak_heap_bytes <= .planned_peak_bytes' <<<"$bench" >/dev/null || fail "a peak above the planned one: $bench"

jq -rn --arg cpu "$cpu" --arg bits "$bits" --arg mib "$mib" --arg memory "$(sed -n 's/^board: MemTotal: *//p' "$work/console")" \
    --argjson doctor "$(output_of 1)" --argjson bench "$bench" \
    --argjson resident "$resident_kib" --argjson program "$(stat -c %s "$work/root/dram")" '
    def mib: . / 1048576 * 10 | round / 10 | "\(.) MiB";
    "board          \($cpu), \($bits) bits, \($mib) MiB (\($memory) after the kernel), emulated; kernels \($doctor.kernels)",
    "planned peak   \($bench.planned_peak_bytes | mib), program \($program | mib)",
    "measured peak  heap and map \($bench.peak_heap_bytes | mib); VmHWM of one answer \($resident * 1024 | mib)",
    "instructions   \($bench.median_ms * 10 | round / 10) million for \($bench.seq // "one shape" | if type == "number" then "\(.) tokens" else . end), \($bench.cold_start_ms | round) million from start to first answer"'

[ -n "${F32:-}" ] || exit 0
jq -rn --argjson int8 "$bench" --argjson f32 "$(output_of 6)" '
    "beside f32     \($int8.median_ms * 100 / $f32.median_ms | round) % of its \($f32.median_ms * 10 | round / 10) million instructions",
    if $int8.median_ms <= $f32.median_ms then empty else "targets/board/run.sh: int8 takes more instructions than f32\n" | halt_error(1) end'
