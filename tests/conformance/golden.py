#!/usr/bin/env python3
"""Asks onnxruntime what the models of models.toml answer, and writes golden.json for the test.

    golden.py [FOLDER]      FOLDER: where fetch.py put the models; $DRAM_CONFORMANCE, else target/conformance

Needs the packages numpy, onnx and onnxruntime. Of every output: its shape, the sums of its values and of their
squares, and up to 48 of the values, evenly spread; of a stream, its last step's, and 48 values of
the first output of all steps one after the other.
"""

import json
import os
import pathlib
import sys
import tomllib

import numpy
import onnx
import onnxruntime

HERE = pathlib.Path(__file__).resolve().parent
DTYPES = {"f32": numpy.float32, "i64": numpy.int64, "i32": numpy.int32}
SAMPLES = 48


def folder():
    default = os.environ.get("DRAM_CONFORMANCE", HERE.parent.parent / "target" / "conformance")
    return pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default)


def uniform(spec, count, seed):
    """SplitMix64 (Steele, Lea and Flood 2014): element i is the mix of (seed * 2^32 + i + 1) steps."""
    with numpy.errstate(over="ignore"):
        steps = numpy.arange(1, count + 1, dtype=numpy.uint64) + numpy.uint64(seed << 32)
        z = steps * numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z ^= z >> numpy.uint64(31)
    fraction = (z >> numpy.uint64(40)).astype(numpy.float64) / 2**24
    values = spec["low"] + fraction * (spec["high"] - spec["low"])
    return values if spec["dtype"] == "f32" else numpy.floor(values)


def voice(count):
    """Pulses of a gliding pitch through two resonances per syllable, a silence after every third; in
    16-bit steps. Only sums and products of doubles, so that every language makes the same samples."""
    vowels = [(730.0, 1090.0), (270.0, 2290.0), (300.0, 870.0), (530.0, 1840.0)]
    samples, phase, memory = [], 0.0, [0.0] * 4
    for i in range(count):
        syllable, place = divmod(i, 3200)
        phase += (110.0 + 0.01 * place) / 16000.0
        pulse = 0.0
        if phase >= 1.0:
            phase -= 1.0
            pulse = 0.0 if syllable % 4 == 3 else 1.0
        value = pulse
        for k, hertz in enumerate(vowels[syllable % 4]):
            # 2 cos(w) by its series: w is below 0.9, where the next term is under 2e-6.
            w2 = (hertz * 2.0 * 3.141592653589793 / 16000.0) ** 2
            cosine2 = 2.0 - w2 + w2 * w2 / 12.0 - w2 * w2 * w2 / 360.0
            y = value + 0.97 * cosine2 * memory[2 * k] - 0.9409 * memory[2 * k + 1]
            memory[2 * k + 1], memory[2 * k] = memory[2 * k], y
            value = y
        samples.append(numpy.floor(max(-1.0, min(1.0, value * 0.04)) * 32767.0 + 0.5) / 32768.0)
    return numpy.array(samples)


VOICE = voice(200_000)


def values(spec, place, step):
    shape, count = spec["shape"], int(numpy.prod(spec["shape"]))
    if spec["fill"] == "value":
        filled = numpy.full(count, spec["value"])
    elif spec["fill"] == "list":
        filled = numpy.array(spec["values"])
    elif spec["fill"] == "uniform":
        filled = uniform(spec, count, place + 16 * step)
    else:
        width = count // shape[0]
        starts = [(step * shape[0] + row) * spec["hop"] for row in range(shape[0])]
        filled = numpy.concatenate([VOICE[start : start + width] for start in starts]) * spec["scale"]
    return filled.astype(DTYPES[spec["dtype"]]).reshape(shape)


def summary(name, tensor):
    flat = tensor.ravel()
    doubles = flat.astype(numpy.float64)
    every = max(1, -(-flat.size // SAMPLES))
    return {
        "name": name,
        "shape": list(tensor.shape),
        "sum": float(doubles.sum()),
        "squares": float((doubles * doubles).sum()),
        "every": every,
        "samples": [float(f"{value:.7g}") for value in doubles[::every]],
    }


def answers(session, case):
    names = [output.name for output in session.get_outputs()]
    carried, stream = {}, []
    for step in range(case.get("steps", 1)):
        given = {
            name: carried.get(name, values(spec, place, step))
            for place, (name, spec) in enumerate(sorted(case["input"].items()))
        }
        outputs = dict(zip(names, session.run(None, given)))
        carried = {target: outputs[source] for source, target in case.get("carry", {}).items()}
        stream.append(outputs[names[0]].ravel())
    result = [summary(name, outputs[name]) for name in names]
    if len(stream) > 1:
        result.append(summary("all steps", numpy.concatenate(stream)))
    return result


def unrounded(path):
    """The model without its pairs of QuantizeLinear and DequantizeLinear: what its integers stand for."""
    model = onnx.load(path)
    graph = model.graph
    writers = {output: node for node in graph.node for output in node.output}
    sources = {}
    for node in graph.node:
        rounding = writers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            sources[node.output[0]] = rounding.input[0]
    for node in graph.node:
        for place, name in enumerate(node.input):
            while name in sources:
                name = sources[name]
            node.input[place] = name
    return model.SerializeToString()


def main():
    models = tomllib.loads((HERE / "models.toml").read_text())["model"]
    golden = []
    for model in models:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = str(folder() / f"{model['id']}.onnx")
        if model.get("unrounded"):
            path = unrounded(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        cases = [{**case, "output": answers(session, case)} for case in model["case"]]
        golden.append({"id": model["id"], "tolerance": model.get("tolerance"), "case": cases})
        print(model["id"], [case["output"][0]["shape"] for case in cases])
    lines = ",\n".join(json.dumps(model, separators=(",", ":")) for model in golden)
    (HERE / "golden.json").write_text(f"[\n{lines}\n]\n")


main()
