#!/usr/bin/env bash
# targets/firmware/run.sh [RECORDING.csv]
#
# Plays a recording through window, features and decision on an emulated Cortex-M4 (mps2-an386), without an
# allocator, and on this machine: the lines must be the same. Needs `rustup target add
# thumbv7em-none-eabihf` and qemu-system-arm; says what it skips where one is missing.
set -euo pipefail
cd "$(dirname "$0")"
triple=thumbv7em-none-eabihf
skip() { echo "SKIPPED targets/firmware/run.sh: $*"; exit 0; }

RECORDING=$(realpath -m "${1:-../../../shared/data/hapt/replay_u01.csv}")
export RECORDING
[ -f "$RECORDING" ] || skip "no $RECORDING"
command -v qemu-system-arm >/dev/null || skip "no qemu-system-arm"
[ -d "$(rustc --print target-libdir --target $triple)" ] || skip "no Rust library for $triple"

lines=$(mktemp -d)
trap 'rm -rf "$lines"' EXIT
export CARGO_TARGET_DIR=../../target/firmware
cargo build --quiet --release
CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS="-C link-arg=-Tlink.x -C link-arg=-L$PWD" cargo build --quiet --release --target $triple
"$CARGO_TARGET_DIR/release/firmware" >"$lines/here"
timeout 300 qemu-system-arm -M mps2-an386 -display none -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel "$CARGO_TARGET_DIR/$triple/release/firmware" >"$lines/there"
cmp "$lines/here" "$lines/there"
echo "mps2-an386: $(tail -1 "$lines/there"), the same bits as here"
