#!/usr/bin/env bash
# targets/setup.sh [TRIPLE | board]...
#
# Installs what is needed to build for other machines and to run the results here, emulated:
#   aarch64-unknown-linux-gnu (the default), armv7-unknown-linux-gnueabihf, x86_64-unknown-linux-gnu,
#   aarch64-unknown-linux-musl, x86_64-unknown-linux-musl, thumbv7em-none-eabihf (a Cortex-M4 without an
#   operating system), and `board`, a whole emulated machine.
#
# Rust's standard library comes from `rustup target add` where rustup has it. Elsewhere it comes from
# Debian: packaged for aarch64, built from the packaged source for armv7 and the Cortex-M; musl is then
# not to be had.
# C compilers and emulators come from Debian. Needs root where one of them is missing.
#
# What is there already is left alone, so a second run takes seconds. The machine's own package
# sources and architectures are never changed: what is downloaded beside them lies in $TARGETS_DIR.
# `RUST_FROM=debian` passes rustup over.
set -euo pipefail
TARGETS_DIR=${TARGETS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dram-targets}
[ $# -gt 0 ] || set -- aarch64-unknown-linux-gnu
fail() { echo "targets/setup.sh: $*" >&2; exit 2; }

# The machine's own mirrors, with backports and ARM beside what it has: an apt of our own.
private_apt() {
    [ -z "${VERSION_CODENAME:-}" ] || return 0
    [ "$(id -u)" = 0 ] || fail "run it as root once, or install: $*"
    command -v apt-get >/dev/null || fail "there is no apt-get; install: $*"
    local apt=$TARGETS_DIR/apt
    mkdir -p "$apt"/{sources,lists/partial,archives/partial}
    # shellcheck source=/dev/null
    . /etc/os-release
    cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$apt/sources" 2>/dev/null || true
    cp /etc/apt/sources.list "$apt/sources/main.list" 2>/dev/null || true
    sed -i -E "s/^(Suites: *$VERSION_CODENAME)( .*)?$/\1 $VERSION_CODENAME-backports\2/" "$apt"/sources/*.sources 2>/dev/null || true
    cat >"$apt/apt.conf" <<END
Dir::Etc::sourcelist "-";
Dir::Etc::sourceparts "$apt/sources";
Dir::State::lists "$apt/lists";
Dir::Cache::archives "$apt/archives";
APT::Architectures { "$(dpkg --print-architecture)"; "arm64"; };
APT::Sandbox::User "root";
DPkg::Lock::Timeout "300";
Acquire::Retries "3";
END
    export APT_CONFIG=$apt/apt.conf DEBIAN_FRONTEND=noninteractive
    [ -n "$(find "$apt/lists" -name '*Packages*' -mmin -720 -print -quit)" ] || { apt-get -qq update; touch "$apt"/lists/*Packages*; }
}

apt_install() { apt-get -qq -y --no-install-recommends --no-remove install "$@" >/dev/null; }

# command_of PROGRAM PACKAGE...: installs the packages where the program is missing.
command_of() {
    command -v "$1" >/dev/null && return
    local program=$1
    shift
    private_apt "$@"
    # Debian's emulators are taken from backports only where others from there are installed already.
    apt_install "$@" 2>/dev/null || apt_install -t "$VERSION_CODENAME-backports" "$@" || fail "cannot install $*, for $program"
}

# unpack PACKAGE FOLDER: a package for another architecture, used as files and not installed.
unpack() {
    local stamp=$2/.complete download
    [ -f "$stamp" ] && return
    private_apt "$1"
    rm -rf "$2"
    mkdir -p "$2"
    download=$(mktemp -d)
    (cd "$download" && apt-get -qq download "$1" && for file in *.deb; do dpkg -x "$file" "$2"; done) || fail "cannot download $1"
    rm -rf "$download"
    touch "$stamp"
}

rust_std() {
    local triple=$1 libraries=$TARGETS_DIR/sysroot/lib/rustlib
    if [ "${RUST_FROM:-rustup}" = rustup ] && command -v rustup >/dev/null; then
        rustup target list --installed | grep -qx "$triple" && return
        timeout 120 rustup target add "$triple" 2>/dev/null && return
        echo "targets/setup.sh: rustup has no $triple here, taking Debian's Rust" >&2
    fi
    [ -e "$libraries/$triple" ] && return
    mkdir -p "$libraries"
    [ -x /usr/bin/rustc ] || {
        private_apt rustc-web cargo-web
        # The newest Rust of a Debian release carries the suffix; releases without one have it as rustc.
        apt_install rustc-web cargo-web 2>/dev/null || apt_install rustc cargo || fail "cannot install rustc and cargo"
    }
    local host package version
    host=$(/usr/bin/rustc -vV | sed -n 's/^host: //p')
    ln -sfn "/usr/lib/rustlib/$host" "$libraries/$host"
    package=$(dpkg-query -S /usr/bin/rustc | cut -d: -f1)
    version=$(dpkg-query -W -f='${Version}' "$package")
    case $triple in
    "$host") ;;
    aarch64-unknown-linux-gnu)
        unpack "libstd-${package/rustc/rust}-dev:arm64=$version" "$TARGETS_DIR/std-arm64"
        ln -sfn "$TARGETS_DIR/std-arm64/usr/lib/rustlib/$triple" "$libraries/$triple"
        ;;
    armv7-unknown-linux-gnueabihf) std_from_source "$triple" std,panic_abort,proc_macro,test "${package/rustc/rust}-src" "$libraries" ;;
    thumbv7em-none-eabihf)
        command_of ld.lld lld
        std_from_source "$triple" core,alloc "${package/rustc/rust}-src" "$libraries"
        ;;
    *) fail "Debian has no Rust library for $triple" ;;
    esac
}

# std_from_source TRIPLE CRATES PACKAGE FOLDER: builds Rust's library as its own bootstrap does: machine code
# and bitcode, `panic_abort` aborting.
std_from_source() {
    local triple=$1 crates=$2 libraries=$4 work memory=()
    [ -d /usr/lib/rustlib/src/rust ] || { private_apt "$3" && apt_install "$3"; } || fail "cannot install $3"
    # Without an operating system nobody else brings `memcpy`.
    [[ $triple != *-none-* ]] || memory=(-Zbuild-std-features=compiler-builtins-mem)
    work=$(mktemp -d)
    mkdir -p "$work/src"
    printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/Cargo.toml"
    echo '#![no_std]' >"$work/src/lib.rs"
    cat >"$work/rustc" <<'END'
#!/bin/sh
case " $* " in
*" --crate-name panic_abort "*) exec "$@" -C embed-bitcode=yes -C panic=abort ;;
*" --crate-name build_script_build "* | *" --crate-name ___ "* | *" -vV "*) exec "$@" ;;
*) exec "$@" -C embed-bitcode=yes ;;
esac
END
    chmod +x "$work/rustc"
    (cd "$work" && env -u RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER="$work/rustc" \
        /usr/bin/cargo build -q --release --target "$triple" --target-dir target -Zbuild-std="$crates" "${memory[@]}")
    mkdir -p "$libraries/$triple.part/lib"
    cp "$work/target/$triple"/release/deps/lib*.{rlib,rmeta} "$libraries/$triple.part/lib"
    rm -rf "$libraries/$triple.part"/lib/libempty-* "$work"
    mv "$libraries/$triple.part" "$libraries/$triple"
}

for target; do
    case $target in
    aarch64-unknown-linux-gnu | aarch64-unknown-linux-musl)
        command_of aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
        command_of qemu-aarch64 qemu-user
        rust_std "$target"
        ;;
    armv7-unknown-linux-gnueabihf)
        command_of arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
        command_of qemu-arm qemu-user
        rust_std "$target"
        ;;
    x86_64-unknown-linux-gnu)
        command_of cc gcc libc6-dev
        rust_std "$target"
        ;;
    x86_64-unknown-linux-musl)
        command_of musl-gcc musl-tools
        rust_std "$target"
        ;;
    thumbv7em-none-eabihf)
        command_of qemu-system-arm qemu-system-arm
        rust_std "$target"
        ;;
    board)
        command_of aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
        command_of qemu-system-aarch64 qemu-system-arm
        command_of cpio cpio
        command_of jq jq
        if [ ! -f "$TARGETS_DIR/kernel/.complete" ]; then
            private_apt "a kernel for arm64"
            kernel=$(apt-cache depends linux-image-cloud-arm64:arm64 | sed -n 's/.*Depends: *\(linux-image-[^: ]*\).*/\1/p' | head -1)
            unpack "$kernel:arm64" "$TARGETS_DIR/kernel"
        fi
        ;;
    *) fail "unknown target \`$target\`; see its first lines" ;;
    esac
    echo "targets/setup.sh: $target is ready"
done
