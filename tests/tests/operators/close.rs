//! When two tensors are the same, as ONNX's own runner sees it.

use dram_runtime::{DType, Tensor};
use half::{bf16, f16};

/// `rtol` and `atol` of ONNX's node tests (`onnx/backend/test/case/node/__init__.py`).
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;

/// Steps between neighbouring values at 1, of which half-precision results may be two away: one of
/// them is more than `RELATIVE`.
const F16_STEP: f64 = 1.0 / 1024.0;
const BF16_STEP: f64 = 1.0 / 128.0;

/// Cases whose results cancel out to nearly nothing, so that f32 leaves more than `ABSOLUTE` of it: the
/// start of their names and the absolute tolerance. onnxruntime holds all of the cases to 1e-5.
const CANCELLING: [(&str, f64); 2] = [("test_dft", 1e-5), ("test_gru_seq_length", 1e-5)];

/// How `got` differs from `expected`; `None` where it does not. Whole numbers are held to the bit.
pub(super) fn difference(case: &str, got: &Tensor, expected: &Tensor) -> Option<String> {
    if (got.dtype(), got.shape()) != (expected.dtype(), expected.shape()) {
        return Some(format!("{got:?} for {expected:?}"));
    }
    let (Some(a), Some(b)) = (floats(got), floats(expected)) else {
        let same = got.bytes() == expected.bytes();
        return (!same).then(|| format!("other values of {expected:?}"));
    };
    let relative = match expected.dtype() {
        DType::F16 => 2.0 * F16_STEP,
        DType::Bf16 => 2.0 * BF16_STEP,
        _ => RELATIVE,
    };
    let exception = CANCELLING.iter().find(|(start, _)| case.starts_with(start));
    let absolute = exception.map_or(ABSOLUTE, |(_, absolute)| *absolute);
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= absolute + relative * b.abs()
    };
    let pairs = a.iter().zip(&b).enumerate();
    let mut apart = pairs.filter(|(_, (a, b))| !close(**a, **b));
    apart.next().map(|(index, (a, b))| format!("{a} for {b} at {index} of {expected:?}"))
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        Some(bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect())
    }
    match tensor.dtype() {
        DType::F64 => each(tensor.bytes(), f64::from_le_bytes),
        DType::F32 => each(tensor.bytes(), |b| f32::from_le_bytes(b).into()),
        DType::F16 => each(tensor.bytes(), |b| f16::from_le_bytes(b).into()),
        DType::Bf16 => each(tensor.bytes(), |b| bf16::from_le_bytes(b).into()),
        _ => None,
    }
}
