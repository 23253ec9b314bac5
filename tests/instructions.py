#!/usr/bin/env python3
"""Counts the instructions of each path that must stay fast, and holds them to instructions.json.

    instructions.py [--dram target/release/dram] [--update]

Valgrind's callgrind counts; it knows no AVX-512, so the AVX2 kernels run. A count is the same in every run but
for a few hundred instructions, on whatever machine; another compiler or C library moves it. A path that takes over
3 % more than its reference fails, and so does one that takes over 3 % less: then the reference no longer guards,
and `--update` writes the new counts, for the commit that explains them. Exit codes: 0 as they were, 1 not, 2 the
count could not be taken.

Needs valgrind, and of Python's packages numpy and onnx.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
REFERENCE = HERE / "instructions.json"
TOLERANCE = 0.03

# What a session computes, tensors to tensors; a whole process where there is none.
INFERENCE = "dram_runtime::session::Session::run"
# The same of a network of convolutions, once it has its memory: what clearing that takes hangs on what lay there before.
NETWORK = "dram_runtime::network::run::<impl dram_runtime::network::Network>::run"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dram", default=ROOT / "target/release/dram")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        counts = measure(options.dram, pathlib.Path(scratch))
    if options.update:
        REFERENCE.write_text(json.dumps(counts, indent=1) + "\n")
        return
    references = json.loads(REFERENCE.read_text())
    moved = [name for name in counts if not report(name, counts[name], references.get(name))]
    missing = references.keys() - counts.keys()
    if moved or missing:
        sys.exit(f"moved by over {TOLERANCE:.0%}, or not counted: {', '.join([*moved, *missing])}")


def measure(dram, scratch):
    """The instructions of each path, by name."""
    model = scratch / "encoder.onnx"
    subprocess.run([sys.executable, ROOT / "models/encoder.py", model], check=True)
    counts = {}
    for precision in ("f32", "int8"):
        bundle = scratch / f"{precision}.dram"
        pack = [dram, "pack", model, "-o", bundle, "--seq", "16,128", "--precision", precision]
        subprocess.run(pack, check=True, capture_output=True)
        for tokens in (16, 128):
            name = f"MiniLM layers x 2, {precision}, {tokens} tokens"
            counts[name] = count([dram, "run", bundle, *tensors(scratch, tokens)], INFERENCE)
    # Networks of convolutions: their golden examples are run once.
    for student in ("digits", "activity"):
        counts[f"{student}, int8"] = count([dram, "verify", ROOT / f"models/zoo/{student}.dram"], NETWORK)
    image = scratch / "image.dram"
    pack = [dram, "pack", HERE / "golden/image.onnx", "-o", image, "--precision", "f32", "--task", "raw"]
    subprocess.run(pack, check=True, capture_output=True)
    counts["a small network of images, f32"] = count([dram, "verify", image], NETWORK)
    intents = [dram, "run", ROOT / "models/zoo/intents.dram"]
    counts["intents, start to first answer"] = count([*intents, "--text", "wake me at six tomorrow"])
    return counts


def tensors(scratch, tokens):
    import numpy

    given = {
        "input_ids": 1 + numpy.arange(tokens)[None] % 100,
        "attention_mask": numpy.ones((1, tokens)),
    }
    arguments = []
    for name, values in given.items():
        numpy.save(scratch / f"{name}.npy", values.astype(numpy.int64))
        arguments += ["--input", f"{name}={scratch / name}.npy"]
    return arguments


def count(command, function=None):
    """Instructions of `command`; of those calls of `function` alone, where it is given."""
    callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    if function:
        callgrind.append(f"--toggle-collect={function}")
    ran = subprocess.run([*callgrind, *command], capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode != 0 or not found or found[1] == "0":
        print(ran.stderr, file=sys.stderr)
        sys.exit(2)
    return int(found[1])


def report(name, counted, reference):
    """Whether `counted` is near enough to `reference`; says both."""
    if reference is None:
        print(f"{name}: {counted:,}, no reference")
        return False
    change = counted / reference - 1
    print(f"{name}: {counted:,}, {change:+.2%} of {reference:,}")
    return abs(change) <= TOLERANCE


if __name__ == "__main__":
    main()
