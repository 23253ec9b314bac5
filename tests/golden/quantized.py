#!/usr/bin/env python3
"""Small models through every quantizer that onnxruntime has, and what onnxruntime answers.

    quantized.py        writes quantized/NAME.onnx and quantized.json, which the quantization test reads

Needs the packages numpy, onnx, onnx_ir and onnxruntime. Inputs and answers are written with seven digits; for each model
also what its float original answers, by which the test knows how much was lost to rounding.
"""

import json
import logging
import pathlib
import tempfile

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

HERE = pathlib.Path(__file__).resolve().parent
RANDOM = numpy.random.default_rng(20)
WIDTH, HIDDEN, CLASSES = 64, 96, 10


def weight(*shape):
    return (RANDOM.standard_normal(shape) / numpy.sqrt(shape[-2] if len(shape) == 2 else 9)).astype(numpy.float32)


def model(nodes, inputs, constants):
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes, "quantized", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initializers
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def layers(product):
    """Two layers with a ReLU between; `product` writes one of them."""
    nodes = product("x", "w1", "b1", "h") + [helper.make_node("Relu", ["h"], ["r"])] + product("r", "w2", "b2", "y")
    constants = {
        "w1": weight(WIDTH, HIDDEN),
        "b1": weight(1, HIDDEN)[0] * 0.3,
        "w2": weight(HIDDEN, CLASSES),
        "b2": weight(1, CLASSES)[0] * 0.3,
    }
    return model(nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])], constants)


def with_matmul(x, w, b, y):
    return [helper.make_node("MatMul", [x, w], [f"{y}.product"]), helper.make_node("Add", [f"{y}.product", b], [y])]


def with_gemm(x, w, b, y):
    return [helper.make_node("Gemm", [x, w, b], [y])]


def lookup():
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("MatMul", ["words", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("ReduceMean", ["t"], ["y"], axes=[1], keepdims=0),
    ]
    constants = {"table": weight(100, WIDTH) * 8, "w": weight(WIDTH, CLASSES)}
    return model(nodes, [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", 6])], constants)


def images():
    """A convolution, a depthwise one, a residual, and a classifier: what QDQ of CNNs looks like."""
    nodes = [
        helper.make_node("Conv", ["x", "c1", "d1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["ra"]),
        helper.make_node("Conv", ["ra", "c2", "d2"], ["b"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Clip", ["b", "zero", "six"], ["rb"]),
        helper.make_node("Conv", ["rb", "c3"], ["c"]),
        helper.make_node("Add", ["c", "ra"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "e"], ["y"]),
    ]
    constants = {
        "c1": weight(8, 3, 3, 3),
        "d1": weight(1, 8)[0] * 0.3,
        "c2": weight(8, 1, 3, 3) * 2,
        "d2": weight(1, 8)[0] * 0.3,
        "c3": weight(8, 8, 1, 1) * 2,
        "w": weight(8, CLASSES) * 3,
        "e": weight(1, CLASSES)[0] * 0.3,
        "zero": numpy.float32(0.0),
        "six": numpy.float32(6.0),
    }
    return model(nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3, 16, 16])], constants)


ROWS = {
    "x": RANDOM.standard_normal((4, WIDTH)).astype(numpy.float32),
    "ids": RANDOM.integers(0, 100, (4, 6)),
    "image": RANDOM.standard_normal((2, 3, 16, 16)).astype(numpy.float32),
}


class Calibration(CalibrationDataReader):
    """Inputs of the kind that the model is asked with, but others."""

    def __init__(self, name, rows):
        seed = numpy.random.default_rng(7)
        fresh = (
            seed.integers(0, 100, rows.shape)
            if rows.dtype == numpy.int64
            else seed.standard_normal((64, *rows.shape[1:])).astype(numpy.float32)
        )
        self.batches = iter([{name: fresh}])

    def get_next(self):
        return next(self.batches, None)


def write(name, original, rows, quantize):
    """Quantizes `original` into quantized/`name`.onnx and gives what both answer to `rows`."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "model.onnx"
        onnx.save(original, source)
        target = HERE / "quantized" / f"{name}.onnx"
        quantize(source, target)
        made = onnx.load(target)
        # The float original's shapes are no part of the model.
        del made.graph.value_info[:]
        onnx.save(made, target)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        ask = lambda file: onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"]).run(
            None, {original.graph.input[0].name: rows}
        )[0]
        answers, exact = ask(target), ask(source)
    digits = lambda values: [float(f"{value:.7g}") for value in values.ravel().tolist()]
    operators = sorted({node.op_type for node in made.graph.node})
    print(name, operators, f"rounding costs {abs(answers - exact).max() / abs(exact).max():.3f}")
    return {
        "name": name,
        "input": original.graph.input[0].name,
        "dtype": "i64" if rows.dtype == numpy.int64 else "f32",
        "shape": list(rows.shape),
        "values": rows.ravel().tolist() if rows.dtype == numpy.int64 else digits(rows),
        "onnxruntime": digits(answers),
        "float": digits(exact),
    }


def dynamic(weights, per_channel=False):
    return lambda source, target: quantize_dynamic(source, target, weight_type=weights, per_channel=per_channel)


def static(format, activations, per_channel, name, rows):
    return lambda source, target: quantize_static(
        source,
        target,
        Calibration(name, rows),
        quant_format=format,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )


def blocks(format, symmetric):
    def quantize(source, target):
        config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=symmetric, quant_format=format)
        quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
        quantizer.process()
        onnx.save(quantizer.model.model, target)

    return quantize


def weight_only(source, target):
    """What exporters of weights alone write: int8 behind DequantizeLinear, a scale a column."""
    made = onnx.load(source)
    for initializer in list(made.graph.initializer):
        values = numpy_helper.to_array(initializer)
        if values.ndim != 2:
            continue
        name = initializer.name
        scale = (abs(values).max(axis=0) / 127).astype(numpy.float32)
        rounded = numpy.clip(numpy.rint(values / scale), -127, 127).astype(numpy.int8)
        made.graph.initializer.remove(initializer)
        made.graph.initializer.append(numpy_helper.from_array(rounded, f"{name}.int8"))
        made.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        made.graph.node.insert(
            0, helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=1)
        )
    onnx.save(made, target)


def main():
    logging.disable(logging.WARNING)
    (HERE / "quantized").mkdir(exist_ok=True)
    plain, gemm, words, cnn = layers(with_matmul), layers(with_gemm), lookup(), images()
    x, ids, image = ROWS["x"], ROWS["ids"], ROWS["image"]
    qdq, operators = QuantFormat.QDQ, QuantFormat.QOperator
    u8, i8 = QuantType.QUInt8, QuantType.QInt8
    cases = [
        ("dynamic-i8", plain, x, dynamic(i8)),
        ("dynamic-u8", plain, x, dynamic(u8)),
        ("dynamic-per-channel", plain, x, dynamic(i8, True)),
        ("dynamic-gather", words, ids, dynamic(i8)),
        ("qdq-u8", plain, x, static(qdq, u8, True, "x", x)),
        ("qdq-i8", plain, x, static(qdq, i8, False, "x", x)),
        ("qdq-gemm", gemm, x, static(qdq, u8, True, "x", x)),
        ("qdq-gather", words, ids, static(qdq, u8, True, "ids", ids)),
        ("qoperator", plain, x, static(operators, u8, False, "x", x)),
        ("qoperator-gemm", gemm, x, static(operators, u8, False, "x", x)),
        ("nbits", plain, x, blocks(operators, True)),
        ("nbits-asymmetric", plain, x, blocks(operators, False)),
        ("nbits-qdq", plain, x, blocks(qdq, True)),
        ("weight-only", plain, x, weight_only),
        ("qdq-images", cnn, image, static(qdq, u8, True, "x", image)),
        ("qoperator-images", cnn, image, static(operators, u8, False, "x", image)),
        ("dynamic-images", cnn, image, dynamic(u8)),
    ]
    golden = [write(name, original, rows, quantize) for name, original, rows, quantize in cases]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in golden)
    (HERE / "quantized.json").write_text(f"[\n{lines}\n]\n")


main()
