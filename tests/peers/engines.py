#!/usr/bin/env python3
"""One Python engine, one ONNX model, one set of inputs: the first answer, then how long each further one takes.

    engines.py onnxruntime|openvino MODEL THREADS SECONDS SAVE NAME=i64|i32|f32:1x128:FILE...

The counterpart of peer.rs: the same arguments, the same lines on stdout. `first_ms` starts after the
imports, so that it holds neither the interpreter's start nor the loading of the library.
"""

import importlib
import json
import sys
import time

import numpy

DTYPES = {"i64": numpy.int64, "i32": numpy.int32, "f32": numpy.float32}


def read(argument):
    name, rest = argument.split("=", 1)
    dtype, shape, file = rest.split(":", 2)
    extents = [int(extent) for extent in shape.split("x")]
    return name, numpy.fromfile(file, DTYPES[dtype]).reshape(extents)


def onnxruntime(library, model, threads, inputs):
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)[0]


def openvino(library, model, threads, inputs):
    core = library.Core()
    graph = core.read_model(model)
    graph.reshape({name: list(value.shape) for name, value in inputs.items()})
    # f32 stays f32: by default it computes in bf16 where the processor can.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    # The results stay its own memory, as those of the other engines do.
    return lambda: next(iter(request.infer(inputs, share_inputs=True, share_outputs=True).values()))


def peak_rss_bytes():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def median(values):
    return sorted(values)[len(values) // 2] if values else None


def main():
    engine, model, threads, seconds, save, *inputs = sys.argv[1:]
    inputs = dict(map(read, inputs))
    library = importlib.import_module(engine)
    start = time.perf_counter()
    infer = {"onnxruntime": onnxruntime, "openvino": openvino}[engine](library, model, int(threads), inputs)
    answer = infer()
    first_ms = (time.perf_counter() - start) * 1e3
    print("first", flush=True)
    numpy.asarray(answer, numpy.float32).tofile(save)
    wall, cpu = [], []
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end:
        one, used = time.perf_counter(), time.process_time()
        infer()
        wall.append((time.perf_counter() - one) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    measured = {
        "first_ms": first_ms,
        "median_ms": median(wall),
        "cpu_ms": median(cpu),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
