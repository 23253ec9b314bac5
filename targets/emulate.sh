#!/usr/bin/env bash
# targets/emulate.sh CPU PROGRAM [ARGUMENT]...
#
# Runs an ARM program under user-mode emulation, as one processor: cortex-a53 and cortex-a72 (no dot
# product), cortex-a76 (dot product), neoverse-v1 (products of matrices of bytes: AWS Graviton3), cortex-a7 and
# cortex-a15 (32 bits); `host` is this machine itself. Emulated times mean nothing.
set -euo pipefail
cpu=${1:?usage: targets/emulate.sh CPU PROGRAM [ARGUMENT]...}
shift
# The kernel under the emulator tells of its own processor in /proc/cpuinfo, and tract reads that.
case $cpu in
cortex-a53) part=0xd03 ;;
cortex-a72) part=0xd08 ;;
cortex-a76) part=0xd0b ;;
neoverse-v1) part=0xd40 ;;
host) exec "$@" ;;
cortex-a7 | cortex-a15) TRACT_CPU_ARM32_NEON=true exec qemu-arm -cpu "$cpu" "$@" ;;
*)
    echo "targets/emulate.sh: unknown processor \`$cpu\`" >&2
    exit 2
    ;;
esac
TRACT_CPU_AARCH64_OVERRIDE_CPU_PART=$part exec qemu-aarch64 -cpu "$cpu" "$@"
