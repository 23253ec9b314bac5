#!/usr/bin/env bash
# targets/test.sh CPU [BUNDLE]...
#
# Builds `dram` and the tests for the architecture of CPU (see targets/emulate.sh), and runs them as that
# processor, emulated:
#   - the bundles of the zoo and each BUNDLE: their golden examples, bit for bit, or within the tolerance of
#     `dram verify` where tract runs a part;
#   - of those that take texts, the answers to some: the same bytes as those of this machine's `dram`
#     ($DRAM, or target/release/dram);
#   - the tests of the kernels, and the conformance tests (`$TESTS`, by name; all of `golden` by default).
set -euo pipefail
cd "$(dirname "$0")/.."
cpu=${1:?usage: targets/test.sh CPU [BUNDLE]...}
shift
case $cpu in
cortex-a7 | cortex-a15) triple=armv7-unknown-linux-gnueabihf ;;
*) triple=aarch64-unknown-linux-gnu ;;
esac
built=${CARGO_TARGET_DIR:-target}
host=${DRAM:-$built/release/dram}
export CPU=$cpu
fail() { echo "targets/test.sh: $cpu: $*" >&2; exit 1; }

targets/build.sh "$triple" build --release --bin dram
# The tests call one file; that file calls the emulator.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#!/bin/sh\nexec %s/targets/emulate.sh %s %s/%s/release/dram "$@"\n' "$PWD" "$cpu" "$(realpath "$built")" "$triple" >"$work/dram"
chmod +x "$work/dram"

"$work/dram" doctor | sed -n 's/^kernels/& of '"$cpu"'/p'
grep -m 40 '[a-z]' README.md >"$work/texts"
for bundle in models/zoo/*.dram "$@"; do
    golden=$("$work/dram" verify "$bundle" | sed -n 's/^golden *//p') || fail "$bundle: its golden examples differ"
    echo "$bundle: golden $golden"
    case $golden in
    *" on kernels: the same bits"*) ;;
    *" on kernels: "*) fail "$bundle: its golden examples are other bits" ;;
    *) continue ;;
    esac
    "$host" inspect "$bundle" --json | grep -q '"tokenizer":{' || continue
    "$host" run "$bundle" --top 1000 --json <"$work/texts" >"$work/here"
    "$work/dram" run "$bundle" --top 1000 --json <"$work/texts" >"$work/there"
    cmp "$work/here" "$work/there" || fail "$bundle: other answers than on this machine"
    echo "$bundle: $(wc -l <"$work/texts") answers, the same bits as here"
done
DRAM=$work/dram targets/build.sh "$triple" test --release --lib -- kernels
# shellcheck disable=SC2086
DRAM=$work/dram targets/build.sh "$triple" test --release --test dram -- ${TESTS:-golden}
