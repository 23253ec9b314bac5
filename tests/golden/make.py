#!/usr/bin/env python3
"""Holds exported students to onnx.checker, onnxruntime and their trainer.

    make.py                 checks tiny.onnx, window.onnx, sound.onnx and image.onnx, and writes the .json
                            beside each, which the golden tests read
    make.py --check FOLDER  checks student.onnx and golden.json in the folder of a distillation

Needs the packages onnx and onnxruntime. The models and their .trainer.json come from
`cargo test -p dram-models write_the_golden -- --ignored`.
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


def compare_signals(path, trainer):
    """The logits of every signal; they are the same alone and side by side."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = trainer["rows"]
    signals = numpy.array([row["signal"] for row in rows], dtype=numpy.float32)
    signals = signals.reshape([len(rows), *trainer["shape"]])
    expected = numpy.array([row["logits"] for row in rows])
    alone = [session.run(["logits"], {"signal": row[None]})[0][0] for row in signals]
    together = session.run(["logits"], {"signal": signals})[0]
    for name, logits in (("alone", alone), ("together", together)):
        difference = float(numpy.abs(numpy.array(logits) - expected).max())
        print(f"{path.name}, rows {name}: onnxruntime differs from the trainer by {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"above the tolerance of {TOLERANCE}")
    return alone


def main():
    here = pathlib.Path(__file__).parent
    if sys.argv[1:2] == ["--check"]:
        folder = pathlib.Path(sys.argv[2])
        trainer = json.loads((folder / "golden.json").read_text())
        check = compare_signals if "shape" in trainer else compare
        check(folder / "student.onnx", trainer)
        return
    for name in ("window", "sound", "image"):
        trainer = json.loads((here / f"{name}.trainer.json").read_text())
        answers = compare_signals(here / f"{name}.onnx", trainer)
        rows = [
            {"signal": row["signal"], "onnxruntime": [float(x) for x in logits]}
            for row, logits in zip(trainer["rows"], answers)
        ]
        golden = {"shape": trainer["shape"], "rows": rows}
        (here / f"{name}.json").write_text(json.dumps(golden) + "\n")
    trainer = json.loads((here / "tiny.trainer.json").read_text())
    rows, alone = compare(here / "tiny.onnx", trainer)
    golden = [
        {"ids": ids, "onnxruntime": [float(x) for x in logits], "trainer": row["logits"]}
        for ids, logits, row in zip(rows, alone, trainer["rows"])
    ]
    (here / "tiny.json").write_text(json.dumps({"rows": golden}, indent=1) + "\n")


main()
