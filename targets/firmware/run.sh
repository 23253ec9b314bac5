#!/usr/bin/env bash
# targets/firmware/run.sh [RECORDING.csv]
#
# Plays a recording through window, features and decision on an emulated Cortex-M4 (mps2-an386), without an
# allocator, and on this machine: the lines must be the same. Without the recording, a made-up one is played.
# `targets/setup.sh thumbv7em-none-eabihf` installs what it needs.
set -euo pipefail
cd "$(dirname "$0")"
triple=thumbv7em-none-eabihf
lines=$(mktemp -d)
trap 'rm -rf "$lines"' EXIT
RECORDING=$(realpath -m "${1:-../../../shared/data/hapt/replay_u01.csv}")
if [ ! -f "$RECORDING" ]; then
    echo "SKIPPED targets/firmware/run.sh: no $RECORDING, playing one that is made up"
    RECORDING=$lines/recording.csv
    # Half a minute each of rest and of steps.
    awk 'BEGIN {
        print "ax_g,ay_g,az_g,gx_rad_s,gy_rad_s,gz_rad_s,label"
        for (i = 0; i < 6000; i++) {
            step = (i % 3000 < 1500 ? 0.01 : 0.6) * sin(i / 4)
            printf "%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,0\n", 1 + step, step / 3, -step / 2, step, 0.1 - step, step * step
        }
    }' >"$RECORDING"
fi
export RECORDING
export CARGO_TARGET_DIR=../../target/firmware
cargo build --quiet --release
../build.sh $triple build --quiet --release
"$CARGO_TARGET_DIR/release/firmware" >"$lines/here"
timeout 300 qemu-system-arm -M mps2-an386 -display none -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel "$CARGO_TARGET_DIR/$triple/release/firmware" >"$lines/there"
cmp "$lines/here" "$lines/there"
echo "mps2-an386: $(tail -1 "$lines/there"), the same bits as here"
