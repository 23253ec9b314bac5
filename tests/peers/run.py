#!/usr/bin/env python3
"""Holds dram beside other engines: the same model, inputs and threads, in alternating rounds on this machine.

    run.py MODEL.onnx [--tokenizer tokenizer.json] [--seq 16,64,128] [--threads 1,2]
           [--precision f32,int8] [--engines dram,onnxruntime,openvino,rten,tract]
           [--rounds 5] [--seconds 1] [--input x=1x3x48x320]... [--dram PROGRAM] [--json FILE]

A round runs every engine once, each in a fresh process of its own; the tables give medians over the rounds,
in milliseconds of wall and of processor time, and the ratio of dram to the fastest peer, which is the median
of the ratios within each round. Processor time is what to read on a machine that has other work to do.

Every engine runs the file that suits it: the f32 model as it is; in int8 dram its bundle (`dram pack`),
onnxruntime, rten and tract the model that onnxruntime quantized dynamically per channel, OpenVINO that with
static ranges (QDQ). With --input, shapes of images or signals, all run static ranges. `cosine` and `worst`
compare an engine's first output with onnxruntime's in f32.

Cold start: for dram from the start of the process to the first byte of its answer to a text; for the
others inside the process, from opening the file on, all libraries loaded. It is in their favour.

Needs cargo, and of Python's packages numpy, onnx, onnxruntime, openvino, and tokenizers with --tokenizer.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
PEERS = ["onnxruntime", "openvino", "rten", "tract"]

# What the sequences are cut from, and what ranges are calibrated on.
TEXT = (
    "The small kitchen smelled of bread when the first train of the morning passed below the window. "
    "Nobody at the table spoke; the radio was reading out the water levels of the rivers, and the "
    "children listened to it as if it were a story. Outside, the baker's van would not start. It had "
    "rained for nine days, the cellar was full, and the mayor had asked for volunteers with shovels. "
    "My sister put on two pairs of socks, wrote a list of what we needed from the pharmacy, and asked "
    "whether the bridge to the north was still open. I said that I would call the station. A quarter of "
    "an hour later we carried sandbags, laughing, because the dog had fallen asleep on the dry ones."
)


def main():
    options = parse()
    folder = TARGET / "peers" / options.model.stem
    folder.mkdir(parents=True, exist_ok=True)
    engines = available(options)
    files = prepare(options, engines, folder)
    report = {"machine": machine(), "latency": [], "start": []}
    print(f"{report['machine']}\n")
    for precision in options.precision:
        for sequence in options.seq:
            for threads in options.threads:
                case = Case(options, folder, files, precision, sequence, threads)
                report["latency"].append(case.latency(engines))
        report["start"].append(Case(options, folder, files, precision, options.seq[0], 1).start(engines))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parse():
    listed = lambda kind: lambda text: [kind(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    parser.add_argument("--seq", type=listed(int), default=[16, 64, 128])
    parser.add_argument("--threads", type=listed(int), default=[1, 2])
    parser.add_argument("--precision", type=listed(str), default=["f32", "int8"])
    parser.add_argument("--engines", type=listed(str), default=["dram", *PEERS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--input", action="append", default=[], metavar="NAME=SHAPE")
    parser.add_argument("--dram", type=pathlib.Path, help="instead of building it")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    if options.input:
        # Shapes that are given leave no sequence to choose.
        options.seq = [None]
    return options


def available(options):
    """The engines of those wanted that this machine has; what it lacks is told."""
    wanted = options.engines
    if options.dram is None:
        subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
        options.dram = TARGET / "release/dram"
    if {"rten", "tract"} & set(wanted):
        # The target folder of the workspace: what of tract is built already is not built again.
        command = ["cargo", "build", "--release", "--target-dir", TARGET]
        subprocess.run(command, cwd=HERE, check=True)
    found = []
    for engine in wanted:
        python = engine in ("onnxruntime", "openvino")
        if python and subprocess.run([sys.executable, "-c", f"import {engine}"]).returncode != 0:
            print(f"SKIPPED: no Python package `{engine}`", file=sys.stderr)
        else:
            found.append(engine)
    return found


def prepare(options, engines, folder):
    """The file of each engine, by precision."""
    files = {}
    for precision in options.precision:
        bundle = folder / f"{precision}.dram"
        command = [options.dram, "pack", options.model, "-o", bundle, *shapes(options)]
        if options.input and precision == "int8":
            calibration = folder / "calibration.npy"
            numpy.save(calibration, next(iter(inputs(options, None).values())))
            command += ["--precision", "int8-static", "--calibrate", calibration]
        else:
            command += ["--precision", precision]
        if options.tokenizer:
            command += ["--tokenizer", options.tokenizer, "--task", "embed"]
        if not options.input:
            command += ["--seq", ",".join(map(str, options.seq))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        files["dram", precision] = bundle
        for engine in set(engines) - {"dram"}:
            files[engine, precision] = options.model
    if "int8" in options.precision:
        dynamic, static = folder / "dynamic.onnx", folder / "static.onnx"
        quantized(options, "dynamic", dynamic, [])
        calibration = folder / "calibration.npz"
        numpy.savez(calibration, **inputs(options, options.seq[-1]))
        quantized(options, "static", static, [calibration])
        for engine in set(engines) - {"dram"}:
            ranges_known = engine == "openvino" or options.input
            files[engine, "int8"] = static if ranges_known else dynamic
    return files


def shapes(options):
    """What `dram` is told of the shapes that are given."""
    return [word for given in options.input for word in ("--shape", given)]


def quantized(options, scheme, out, calibration):
    if not out.exists() or out.stat().st_mtime < options.model.stat().st_mtime:
        command = [sys.executable, HERE / "quantize.py", scheme, options.model, out, *calibration]
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        if ended != 0:
            print(f"LEFT OUT: {out.name}: onnxruntime's quantizer ends with {ended}", file=sys.stderr)


def inputs(options, sequence):
    """The model's inputs by name: the text cut to `sequence` tokens, or noise of the shapes that are given."""
    import onnx

    random = numpy.random.default_rng(1)
    if options.input:
        given = dict(one.split("=", 1) for one in options.input)
        extents = {name: [int(extent) for extent in shape.split("x")] for name, shape in given.items()}
        graph = onnx.load(options.model, load_external_data=False).graph
        kinds = {declared.name: declared.type.tensor_type.elem_type for declared in graph.input}
        noise = lambda shape: random.standard_normal(shape).astype(numpy.float32)
        whole = lambda shape: random.integers(0, 256, shape).astype(numpy.int32)
        return {
            name: (whole if kinds[name] == onnx.TensorProto.INT32 else noise)(shape)
            for name, shape in extents.items()
        }
    if options.tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(options.tokenizer))
        tokenizer.no_padding()
        tokenizer.enable_truncation(sequence)
        ids = tokenizer.encode(TEXT).ids
    else:
        ids = random.integers(1, 100, sequence).tolist()
    if len(ids) != sequence:
        raise SystemExit(f"run.py: the text gives {len(ids)} tokens, --seq asks for {sequence}")
    values = {}
    for declared in onnx.load(options.model, load_external_data=False).graph.input:
        kind = "mask" if "mask" in declared.name else "type" if "type" in declared.name else "ids"
        row = {"mask": [1] * sequence, "type": [0] * sequence, "ids": ids}[kind]
        values[declared.name] = numpy.array([row], numpy.int64)
    return values


class Case:
    """One precision, length and number of threads."""

    def __init__(self, options, folder, files, precision, sequence, threads):
        self.options, self.folder, self.files = options, folder, files
        self.precision, self.sequence, self.threads = precision, sequence, threads
        self.arguments, self.npy = [], []
        for name, value in inputs(options, sequence).items():
            dtype = {"int64": "i64", "int32": "i32", "float32": "f32"}[value.dtype.name]
            shape = "x".join(map(str, value.shape))
            file = folder / f"{name}-{shape}"
            value.tofile(file)
            numpy.save(f"{file}.npy", value)
            self.arguments.append(f"{name}={dtype}:{shape}:{file}")
            self.npy += ["--input", f"{name}={file}.npy"]

    def latency(self, engines):
        engines = [engine for engine in engines if self.files[engine, self.precision].exists()]
        rounds = {engine: [] for engine in engines}
        for _ in range(self.options.rounds):
            for engine in list(rounds):
                try:
                    rounds[engine].append(self.measure(engine, self.options.seconds))
                except subprocess.CalledProcessError as error:
                    print(f"LEFT OUT: {engine} ends with {error.returncode}", file=sys.stderr)
                    del rounds[engine]
        head = f"{self.precision}, {self.sequence} tokens" if self.sequence else self.precision
        print(f"{head}, {self.threads} threads")
        print(f"{'':12} {'wall ms':>9} {'cpu ms':>9} {'least':>9} {'cosine':>10} {'worst':>9}")
        rows = []
        for engine, measured in rounds.items():
            cosine, worst = self.difference(engine)
            row = {
                "engine": engine,
                "wall_ms": statistics.median(one["median_ms"] for one in measured),
                "cpu_ms": statistics.median(one["cpu_ms"] for one in measured),
                "least_cpu_ms": min(one["cpu_ms"] for one in measured),
                "cosine": cosine,
                "worst": worst,
            }
            rows.append(row)
            print(
                f"{engine:12} {row['wall_ms']:9.2f} {row['cpu_ms']:9.2f} {row['least_cpu_ms']:9.2f}"
                f" {cosine:10.6f} {worst:9.2g}"
            )
        ratios = {key: ratio_to_best(rounds, key) for key in ("median_ms", "cpu_ms")}
        print(f"dram / best peer: wall {ratios['median_ms']}, cpu {ratios['cpu_ms']}\n")
        case = {"precision": self.precision, "seq": self.sequence, "threads": self.threads}
        return {**case, "engines": rows, "ratio_wall": ratios["median_ms"], "ratio_cpu": ratios["cpu_ms"]}

    def start(self, engines):
        """Time to the first answer, and the most memory."""
        print(f"{self.precision}, first answer\n{'':12} {'ms':>9} {'peak RSS MiB':>13}")
        rows = []
        for engine in engines:
            try:
                measured = [self.first(engine) for _ in range(2 * self.options.rounds)]
            except subprocess.CalledProcessError:
                continue
            row = {
                "engine": engine,
                "first_ms": statistics.median(first for first, _ in measured),
                "least_ms": min(first for first, _ in measured),
                "peak_rss_bytes": statistics.median(peak for _, peak in measured),
            }
            rows.append(row)
            print(f"{engine:12} {row['first_ms']:9.1f} {row['peak_rss_bytes'] / 2**20:13.1f}")
        print()
        return {"precision": self.precision, "engines": rows}

    def first(self, engine):
        if engine != "dram":
            measured = self.measure(engine, 0)
            return measured["first_ms"], measured["peak_rss_bytes"]
        bundle = self.files["dram", self.precision]
        asked = ["--text", TEXT.split(".")[0]] if self.options.tokenizer else [*self.npy, *shapes(self.options)]
        begin = time.perf_counter()
        child = subprocess.Popen([self.options.dram, "run", bundle, *asked], stdout=subprocess.PIPE)
        answered = child.stdout.read(1)
        first_ms = (time.perf_counter() - begin) * 1e3
        child.stdout.read()
        if child.wait() != 0 or not answered:
            raise subprocess.CalledProcessError(child.returncode, "dram run")
        return first_ms, self.measure("dram", 0)["peak_rss_bytes"]

    def measure(self, engine, seconds):
        """One fresh process: its medians over `seconds`."""
        file = self.files[engine, self.precision]
        if engine == "dram":
            command = [self.options.dram, "--json", "bench", file, "--seconds", str(seconds)]
            command += ["--threads", str(self.threads), *shapes(self.options)]
            if self.sequence:
                command += ["--seq", str(self.sequence)]
        else:
            program = [TARGET / "release/peer", engine]
            if engine in ("onnxruntime", "openvino"):
                program = [sys.executable, HERE / "engines.py", engine]
            command = [*program, file, str(self.threads), str(seconds), self.saved(engine), *self.arguments]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(output if engine == "dram" else output.splitlines()[-1])

    def saved(self, engine):
        return self.folder / f"{engine}-{self.precision}.f32"

    def difference(self, engine):
        """Cosine and largest difference of the first output to onnxruntime's in f32."""
        reference = self.folder / "reference.f32"
        command = [sys.executable, HERE / "engines.py", "onnxruntime", self.options.model, "1", "0"]
        subprocess.run([*command, reference, *self.arguments], check=True, stdout=subprocess.DEVNULL)
        expected = numpy.fromfile(reference, numpy.float32).astype(numpy.float64)
        if engine == "dram":
            saved = self.folder / "dram-outputs"
            command = [self.options.dram, "--json", "run", self.files["dram", self.precision]]
            command += [*self.npy, *shapes(self.options)]
            ran = subprocess.run([*command, "--save", saved], check=True, stdout=subprocess.PIPE)
            got = numpy.load(json.loads(ran.stdout)[0]["file"]).ravel()
        else:
            got = numpy.fromfile(self.saved(engine), numpy.float32)
        got = got.astype(numpy.float64)
        lengths = numpy.linalg.norm(got) * numpy.linalg.norm(expected)
        return float(got @ expected / lengths), float(numpy.abs(got - expected).max())


def ratio_to_best(rounds, key):
    """Median over the rounds of dram's time by that of the peer which is fastest by its median."""
    peers = {engine: [one[key] for one in measured] for engine, measured in rounds.items()}
    ours = peers.pop("dram", None)
    if ours is None or not peers:
        return None
    best = min(peers.values(), key=statistics.median)
    return round(statistics.median(our / their for our, their in zip(ours, best)), 3)


def machine():
    with open("/proc/cpuinfo") as lines:
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(named.get("flags", "").split())
    kinds = [flag for flag in ("avx2", "avx_vnni", "avx512f", "avx512_vnni") if flag in flags]
    family = f"family {named.get('cpu family')} model {named.get('model')}"
    return f"{named.get('model name', 'unknown')}, {family}, {' '.join(kinds)}"


if __name__ == "__main__":
    main()
