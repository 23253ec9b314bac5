#!/usr/bin/env python3
"""An f32 ONNX model as each peer wants it in int8, made by onnxruntime's own quantizer.

    quantize.py dynamic|static MODEL.onnx OUT.onnx [CALIBRATION.npz...]

`dynamic`: weights per channel, activations as they come (`MatMulInteger`), which onnxruntime, rten and tract
run. `static`: QDQ with ranges from the calibration inputs, which OpenVINO runs.
"""

import sys

import numpy
from onnxruntime import quantization


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, files):
        self.samples = iter([dict(numpy.load(file)) for file in files])

    def get_next(self):
        return next(self.samples, None)


def main():
    scheme, model, out, *calibration = sys.argv[1:]
    if scheme == "dynamic":
        quantization.quantize_dynamic(
            model, out, per_channel=True, weight_type=quantization.QuantType.QInt8
        )
    else:
        quantization.quantize_static(
            model,
            out,
            Calibration(calibration),
            # What OpenVINO runs in int8; ranges for everything else cost time and accuracy.
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


if __name__ == "__main__":
    main()
