#!/usr/bin/env bash
# targets/build.sh TRIPLE [CARGO ARGUMENT]...
#
# Runs cargo for a target that targets/setup.sh has prepared; without arguments it builds what is
# shipped to a board, target/TRIPLE/dist/dram. Programs are static: the board's C library plays no part.
# `test` and `run` emulate the processor $CPU (targets/emulate.sh).
set -euo pipefail
targets=$(cd "$(dirname "$0")" && pwd)
TARGETS_DIR=${TARGETS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dram-targets}
triple=${1:?usage: targets/build.sh TRIPLE [CARGO ARGUMENT]...}
shift
flags="-C target-feature=+crt-static"
if [ $# = 0 ]; then
    set -- build --profile dist --bin dram
    # Tables for unwinding are a megabyte, and this profile aborts on a panic.
    flags="$flags -C force-unwind-tables=no"
fi
case $triple in
aarch64-*)
    # The name that Rust expects a C compiler for musl to have is not the name of Debian's.
    export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
    linker=aarch64-linux-gnu-gcc
    runner="$targets/emulate.sh ${CPU:-cortex-a53}"
    ;;
armv7-*)
    linker=arm-linux-gnueabihf-gcc
    runner="$targets/emulate.sh ${CPU:-cortex-a7}"
    # Cortex-A7 and later have both; without them each multiply-add is a function call.
    flags="$flags -C target-feature=+vfp4,+neon"
    # The default linker of binutils 2.40 gives a static program of this size wrong addresses for the C
    # library's own choices of `memcpy`, and it ends before `main`.
    flags="$flags -C link-arg=-fuse-ld=gold"
    ;;
thumbv7em-none-eabihf)
    # The layout of memory is the program's own: targets/firmware.
    linker=rust-lld
    flags="-C link-arg=-Tlink.x -C link-arg=-L$targets/firmware"
    ;;
# Rust brings musl's own start files; with those of `musl-gcc` a static program of today ends before `main`.
x86_64-*) linker=cc ;;
*)
    echo "targets/build.sh: unknown target \`$triple\`" >&2
    exit 2
    ;;
esac

rustup_has() {
    [ "${RUST_FROM:-rustup}" = rustup ] && command -v rustup >/dev/null && rustup target list --installed | grep -qx "$triple"
}
cargo=cargo
if [ -e "$TARGETS_DIR/sysroot/lib/rustlib/$triple" ] && ! rustup_has; then
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc
    flags="$flags --sysroot=$TARGETS_DIR/sysroot"
    # rust-lld is rustup's own.
    [ "$linker" != rust-lld ] || linker=ld.lld
fi
name=${triple//-/_}
export "CARGO_TARGET_${name^^}_LINKER=$linker" "CARGO_TARGET_${name^^}_RUSTFLAGS=$flags"
[ -z "${runner:-}" ] || export "CARGO_TARGET_${name^^}_RUNNER=$runner"
# Behind the subcommand: what follows `--` is not cargo's.
subcommand=$1
shift
exec "$cargo" "$subcommand" --target "$triple" "$@"
