#!/usr/bin/env bash
# targets/test.sh CPU [BUNDLE]...
#
# Builds `dram` and the tests for the architecture of CPU (see targets/emulate.sh), and runs them as that
# processor, emulated:
#   - the bundle of the zoo and each BUNDLE: their golden examples, bit for bit;
#   - the answers to some texts: the same bytes as those of this machine's `dram`
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
host=${DRAM:-target/release/dram}
export CPU=$cpu
fail() { echo "targets/test.sh: $cpu: $*" >&2; exit 1; }

targets/build.sh "$triple" build --release --bin dram
# The tests call one file; that file calls the emulator.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#!/bin/sh\nexec %s/targets/emulate.sh %s %s/target/%s/release/dram "$@"\n' "$PWD" "$cpu" "$PWD" "$triple" >"$work/dram"
chmod +x "$work/dram"

"$work/dram" doctor | sed -n 's/^kernels/& of '"$cpu"'/p'
for bundle in models/zoo/intents.dram "$@"; do
    "$work/dram" verify "$bundle" | grep -q "the same bits" || fail "$bundle: its golden examples differ"
    grep '[a-z]' README.md | head -40 >"$work/texts"
    "$host" run "$bundle" --top 1000 --json <"$work/texts" >"$work/here"
    "$work/dram" run "$bundle" --top 1000 --json <"$work/texts" >"$work/there"
    cmp "$work/here" "$work/there" || fail "$bundle: other answers than on this machine"
    echo "$bundle: $(wc -l <"$work/texts") answers, the same bits as here"
done
DRAM=$work/dram targets/build.sh "$triple" test --release --lib -- kernels
# shellcheck disable=SC2086
DRAM=$work/dram targets/build.sh "$triple" test --release --test dram -- ${TESTS:-golden}
