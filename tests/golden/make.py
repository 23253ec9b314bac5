#!/usr/bin/env python3
"""Holds an exported encoder to onnx.checker, onnxruntime and its trainer.

    make.py                 checks tiny.onnx and writes tiny.json, which the golden test reads
    make.py --check FOLDER  checks student.onnx and golden.json in the folder of a distillation

Needs the packages onnx and onnxruntime. tiny.onnx and tiny.trainer.json come from
`cargo test -p dram-models write_the_golden_encoder -- --ignored`.
"""

import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime

# Two f32 implementations of the same sums; logits are of size 1 to 20.
TOLERANCE = 1e-4


def answers(path, rows):
    """The logits of every row alone, after a full check of the model."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def ask(ids, mask):
        ids, mask = (numpy.array(values, dtype=numpy.int64) for values in (ids, mask))
        return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]

    alone = [ask([row], [[1] * len(row)])[0] for row in rows]
    # The same rows side by side: padding must change nothing.
    width = max(map(len, rows))
    ids = [row + [0] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return alone, ask(ids, mask)


def compare(path, trainer):
    rows = [row["ids"] for row in trainer["rows"]]
    expected = numpy.array([row["logits"] for row in trainer["rows"]])
    alone, padded = answers(path, rows)
    for name, logits in (("alone", alone), ("padded", padded)):
        difference = float(numpy.abs(numpy.array(logits) - expected).max())
        print(f"{path.name}, rows {name}: onnxruntime differs from the trainer by {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"above the tolerance of {TOLERANCE}")
    return rows, alone


def main():
    here = pathlib.Path(__file__).parent
    if sys.argv[1:2] == ["--check"]:
        folder = pathlib.Path(sys.argv[2])
        compare(folder / "student.onnx", json.loads((folder / "golden.json").read_text()))
        return
    trainer = json.loads((here / "tiny.trainer.json").read_text())
    rows, alone = compare(here / "tiny.onnx", trainer)
    golden = [
        {"ids": ids, "onnxruntime": [float(x) for x in logits], "trainer": row["logits"]}
        for ids, logits, row in zip(rows, alone, trainer["rows"])
    ]
    (here / "tiny.json").write_text(json.dumps({"rows": golden}, indent=1) + "\n")


main()
