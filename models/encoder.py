#!/usr/bin/env python3
"""A BERT encoder as ONNX, in the node forms of models/src/export.rs: ids and mask to a sentence embedding.

    encoder.py OUT.onnx [--layers 2]                 MiniLM's shape (hidden 384, 12 heads), random weights
    encoder.py OUT.onnx --weights model.safetensors  all-MiniLM-L6-v2 itself, as models/fetch.sh fetches it

Needs the packages numpy and onnx, and safetensors with --weights. Random weights are the same in every run.
"""

import argparse

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

WORDS, POSITIONS = 1000, 512


class Writer:
    """MiniLM's encoder; another one names what it has otherwise. `weights(key, *shape)` gives a stored tensor."""

    HIDDEN, HEADS, INNER, EPSILON = 384, 12, 1536, 1e-12
    # What is added to the scores of each layer.
    BIAS = "mask.bias"
    # The stored tensors of a layer.
    KEYS = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attended": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
    }

    def __init__(self, weights):
        self.weights, self.nodes, self.constants = weights, [], {}

    def constant(self, name, values):
        self.constants[name] = values

    def node(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def norm(self, x, name, key):
        self.constant(f"{name}.gamma", self.weights(f"{key}.weight", self.HIDDEN))
        self.constant(f"{name}.beta", self.weights(f"{key}.bias", self.HIDDEN))
        inputs = [x, f"{name}.gamma", f"{name}.beta"]
        return self.node("LayerNormalization", inputs, f"{name}.output", axis=-1, epsilon=self.EPSILON)

    def linear(self, x, name, key, outputs, inputs):
        weight = self.weights(f"{key}.weight", outputs, inputs)
        self.constant(f"{name}.weight", numpy.ascontiguousarray(weight.T))
        self.constant(f"{name}.bias", self.weights(f"{key}.bias", outputs))
        product = self.node("MatMul", [x, f"{name}.weight"], f"{name}.product")
        return self.node("Add", [product, f"{name}.bias"], f"{name}.output")

    def gelu(self, x, name):
        self.node("Mul", [x, "sqrt_half"], f"{name}.scaled")
        self.node("Erf", [f"{name}.scaled"], f"{name}.erf")
        self.node("Add", [f"{name}.erf", "one"], f"{name}.gate")
        self.node("Mul", [x, "half"], f"{name}.half")
        return self.node("Mul", [f"{name}.half", f"{name}.gate"], f"{name}.output")

    def head(self, x, name, key, perm):
        values = self.linear(x, name, key, self.HIDDEN, self.HIDDEN)
        split = self.node("Reshape", [values, "split_heads"], f"{name}.split")
        return self.node("Transpose", [split], f"{name}.heads", perm=perm)

    def layer(self, x, index):
        name, key = f"layers.{index}", f"encoder.layer.{index}"
        stored = {part: f"{key}.{place}" for part, place in self.KEYS.items()}
        query = self.head(x, f"{name}.query", stored["query"], [0, 2, 1, 3])
        keys = self.head(x, f"{name}.key", stored["key"], [0, 2, 3, 1])
        values = self.head(x, f"{name}.value", stored["value"], [0, 2, 1, 3])
        scores = self.node("MatMul", [query, keys], f"{name}.scores")
        scores = self.node("Mul", [scores, "attention_scale"], f"{name}.scores.scaled")
        scores = self.node("Add", [scores, self.BIAS], f"{name}.scores.masked")
        shares = self.node("Softmax", [scores], f"{name}.attention", axis=-1)
        mixed = self.node("MatMul", [shares, values], f"{name}.mixed")
        rows = self.node("Transpose", [mixed], f"{name}.mixed.rows", perm=[0, 2, 1, 3])
        merged = self.node("Reshape", [rows, "merge_heads"], f"{name}.mixed.merged")
        attended = self.linear(merged, f"{name}.attended", stored["attended"], self.HIDDEN, self.HIDDEN)
        x = self.node("Add", [attended, x], f"{name}.attention.sum")
        x = self.norm(x, f"{name}.attention_norm", stored["attention_norm"])
        wide = self.linear(x, f"{name}.expand", f"{key}.intermediate.dense", self.INNER, self.HIDDEN)
        wide = self.gelu(wide, f"{name}.gelu")
        narrow = self.linear(wide, f"{name}.contract", f"{key}.output.dense", self.HIDDEN, self.INNER)
        x = self.node("Add", [narrow, x], f"{name}.feed_forward.sum")
        return self.norm(x, f"{name}.feed_forward_norm", f"{key}.output.LayerNorm")

    def encoder(self, layers):
        self.scalars()
        self.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        self.node("Unsqueeze", ["mask", "axes_1_2"], "mask.row")
        self.node("Sub", ["one", "mask.row"], "mask.padding")
        self.node("Mul", ["mask.padding", "masked_score"], "mask.bias")
        self.node("Gather", ["words.weight", "input_ids"], "words", axis=0)
        self.node("Shape", ["input_ids"], "input_shape")
        self.node("Slice", ["input_shape", "axis_1", "axis_2", "axis_0"], "sequence_length")
        self.bias()
        self.node("Slice", ["positions.weight", "axis_0", "sequence_length", "axis_0"], "positions")
        x = self.node("Add", ["words", "positions"], "embeddings")
        x = self.norm(x, "norm", "embeddings.LayerNorm")
        for index in range(layers):
            x = self.layer(x, index)
        self.node("Unsqueeze", ["mask", "axis_2"], "mask.column")
        self.node("Mul", [x, "mask.column"], "pool.kept")
        self.node("ReduceSum", ["pool.kept", "axis_1"], "pool.sum", keepdims=0)
        self.node("ReduceSum", ["mask.column", "axis_1"], "pool.count", keepdims=0)
        self.node("Div", ["pool.sum", "pool.count"], "embedding")
        self.node("ReduceL2", ["embedding"], "embedding.norm", axes=[-1], keepdims=1)
        self.node("Div", ["embedding", "embedding.norm"], "sentence_embedding")

    def bias(self):
        """Writes what else is added to scores, and ends with `BIAS`."""

    def scalars(self):
        scalars = {
            "one": 1.0,
            "half": 0.5,
            "sqrt_half": 2**-0.5,
            "masked_score": -10000.0,
            "attention_scale": (self.HIDDEN / self.HEADS) ** -0.5,
        }
        lists = {
            "axis_0": [0],
            "axis_1": [1],
            "axis_2": [2],
            "axes_1_2": [1, 2],
            "split_heads": [0, 0, self.HEADS, self.HIDDEN // self.HEADS],
            "merge_heads": [0, 0, self.HIDDEN],
        }
        for name, value in scalars.items():
            self.constant(name, numpy.array(value, numpy.float32))
        for name, value in lists.items():
            self.constant(name, numpy.array(value, numpy.int64))
        table = "embeddings.word_embeddings.weight"
        self.constant("words.weight", self.weights(table, WORDS, self.HIDDEN))
        self.constant("positions.weight", self.positions())

    def positions(self):
        # A single text has one segment.
        positions = self.weights("embeddings.position_embeddings.weight", POSITIONS, self.HIDDEN)
        return positions + self.weights("embeddings.token_type_embeddings.weight", 2, self.HIDDEN)[0]

    def model(self):
        value = helper.make_tensor_value_info
        row = ["batch", "sequence"]
        inputs = [value(name, TensorProto.INT64, row) for name in ("input_ids", "attention_mask")]
        outputs = [value("sentence_embedding", TensorProto.FLOAT, ["batch", self.HIDDEN])]
        tensors = [numpy_helper.from_array(values, name) for name, values in self.constants.items()]
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--weights")
    options = parser.parse_args()
    if options.weights:
        from safetensors.numpy import load_file

        stored = load_file(options.weights)
        writer, options.layers = Writer(lambda key, *_: stored[key]), 6
    else:
        random = numpy.random.default_rng(1)
        writer = Writer(lambda _, *shape: (random.standard_normal(shape) * 0.05).astype(numpy.float32))
    writer.encoder(options.layers)
    model = writer.model()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, options.out)


if __name__ == "__main__":
    main()
