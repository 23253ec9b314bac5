#!/usr/bin/env bash
# targets/test.sh [--device] CPU [BUNDLE]...
#
# Builds `dram` and the tests for the architecture of CPU (see targets/emulate.sh), and runs them as that
# processor, emulated:
#   - the bundles of the zoo and each BUNDLE: their golden examples, bit for bit, or within the tolerance of
#     `dram verify` where tract runs a part;
#   - of those that take texts, the answers to forty; of the others, the outputs for a few inputs of noise: the
#     same bytes as those of this machine's `dram` ($DRAM, or target/release/dram);
#   - the tests of the kernels, and the conformance tests: all of `golden`, and against onnxruntime the models of
#     other people that $DRAM_CONFORMANCE holds and `$MODELS` names. By default those that take seconds each when
#     they are emulated; `MODELS='*'` runs all, for the better part of an hour.
# With `--device` it builds what is shipped without tract, and runs the bundles only. `$TRIPLE` chooses another
# target than the one of CPU with glibc; `host` as CPU is this machine itself.
set -euo pipefail
cd "$(dirname "$0")/.."
usage="usage: targets/test.sh [--device] CPU [BUNDLE]..."
device=
if [ "${1:-}" = --device ]; then
    device=yes
    shift
fi
cpu=${1:?$usage}
shift
case $cpu in
cortex-a7 | cortex-a15) triple=${TRIPLE:-armv7-unknown-linux-gnueabihf} ;;
host) triple=${TRIPLE:-x86_64-unknown-linux-gnu} ;;
*) triple=${TRIPLE:-aarch64-unknown-linux-gnu} ;;
esac
built=${CARGO_TARGET_DIR:-target}
host=${DRAM:-$built/release/dram}
export CPU=$cpu
fail() { echo "targets/test.sh: $cpu: $*" >&2; exit 1; }

if [ -n "$device" ]; then
    program=$triple/dist/dram
    targets/build.sh "$triple" build --profile dist --package dram-cli --no-default-features --bin dram
    # What a device needs, and room to grow.
    size=$(stat --format %s "$built/$program")
    [ "$size" -le $((8 << 20)) ] || fail "a device build of $size bytes, more than 8 MiB"
    echo "$program: $size bytes"
else
    program=$triple/release/dram
    targets/build.sh "$triple" build --release --bin dram
fi
# The tests call one file; that file calls the emulator.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#!/bin/sh\nexec %s/targets/emulate.sh %s %s/%s "$@"\n' "$PWD" "$cpu" "$(realpath "$built")" "$program" >"$work/dram"
chmod +x "$work/dram"

# inputs_of BUNDLE N: files of f32 noise for its inputs, the same in every run, as flags of `dram run`.
inputs_of() {
    "$host" inspect "$1" --json | python3 -c '
import json, random, struct, sys
folder, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
for place, text in enumerate(json.load(sys.stdin)["inputs"]):
    name, dtype, shape = text.split(" ", 2)
    shape = [int(it) if it.isdigit() else 1 for it in shape[1:-1].split(", ")]
    assert dtype == "f32", f"input {text}: noise is f32"
    count = 1
    for extent in shape:
        count *= extent
    tuple_ = "(" + "".join(f"{it}, " for it in shape) + ")"
    header = f"{{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": {tuple_}}}".replace("\"", "\x27")
    header += " " * (-(len(header) + 11) % 64) + "\n"
    values = struct.pack(f"<{count}f", *(random.gauss(0, 0.5) for _ in range(count)))
    path = f"{folder}/noise-{place}.npy"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values)
    print(f"--input={name}={path}")
' "$work" "$2"
}

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
    if "$host" inspect "$bundle" --json | grep -q '"tokenizer":{'; then
        "$host" run "$bundle" --top 1000 --json <"$work/texts" >"$work/here"
        "$work/dram" run "$bundle" --top 1000 --json <"$work/texts" >"$work/there"
        answers="$(wc -l <"$work/texts") answers"
    else
        for seed in 1 2 3 4 5; do
            mapfile -t inputs < <(inputs_of "$bundle" "$seed")
            "$host" run "$bundle" "${inputs[@]}" --top 1000 --json >>"$work/here"
            "$work/dram" run "$bundle" "${inputs[@]}" --top 1000 --json >>"$work/there"
        done
        answers="5 answers"
    fi
    cmp "$work/here" "$work/there" || fail "$bundle: other answers than on this machine"
    [ -s "$work/here" ] || fail "$bundle: no answers"
    rm "$work/here" "$work/there"
    echo "$bundle: $answers, the same bits as here"
done
[ -z "$device" ] || exit 0
DRAM=$work/dram targets/build.sh "$triple" test --release --lib -- kernels
mkdir "$work/models"
models=${DRAM_CONFORMANCE:-target/conformance}
read -ra wanted <<<"${MODELS:-mtcnn-* ppocr-v2-* livekit-* akiki-* silero-* hibari-spelling-int8}"
for model in "${wanted[@]}"; do
    # shellcheck disable=SC2231
    for file in "$models"/$model.onnx; do
        [ ! -f "$file" ] || ln -sf "$(realpath "$file")" "$work/models/"
    done
done
[ -n "$(ls "$work/models")" ] || echo "SKIPPED: no models of other people in $models; tests/conformance/fetch.py gets them"
DRAM=$work/dram DRAM_CONFORMANCE=$work/models targets/build.sh "$triple" test --release --test dram -- \
    golden third_party_models_agree_with_onnxruntime
