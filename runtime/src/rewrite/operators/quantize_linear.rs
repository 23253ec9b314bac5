//! `QuantizeLinear` as arithmetic. tract multiplies by the reciprocal of a scale, which rounds some
//! values to the other side; ONNX divides.
//!
//! Refused: blocks whose scales are not known, and results that are no 8- or 16-bit integers.

use super::body::Body;
use crate::tensor::{DType, Tensor};

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    let dtype = match node.input(2) {
        Some(zero_point) => body.known_dtype(zero_point)?,
        None => DType::of_onnx_number(node.int("output_dtype", 0)).unwrap_or(DType::U8),
    };
    let (least, most) = range(dtype)?;
    let scale = spread(body, 1)?;
    let scale = body.as_f32(&scale);
    let exact = body.as_f32(input);
    let steps = body.op("Div", &[&exact, &scale]);
    let mut steps = body.op("Round", &[&steps]);
    if node.input(2).is_some() {
        let zero_point = spread(body, 2)?;
        let zero_point = body.as_f32(&zero_point);
        steps = body.op("Add", &[&steps, &zero_point]);
    }
    let (least, most) = (body.float(least), body.float(most));
    let steps = body.op("Max", &[&steps, &least]);
    let steps = body.op("Min", &[&steps, &most]);
    let quantized = body.cast(&steps, dtype);
    body.give(0, &quantized);
    Some(())
}

fn range(dtype: DType) -> Option<(f32, f32)> {
    Some(match dtype {
        DType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DType::U8 => (u8::MIN.into(), u8::MAX.into()),
        DType::I16 => (i16::MIN.into(), i16::MAX.into()),
        DType::U16 => (u16::MIN.into(), u16::MAX.into()),
        _ => return None,
    })
}

/// The scales or zero points of input `place`, shaped so that they broadcast over input 0.
pub(super) fn spread(body: &mut Body, place: usize) -> Option<String> {
    let node = body.node;
    let (input, value) = (node.input(0)?, node.input(place)?);
    let axis = node.int("axis", 1);
    let block = node.int("block_size", 0);
    if block > 0 {
        let repeated = repeated(body.known(value)?, axis, usize::try_from(block).ok()?)?;
        return Some(body.constant(repeated));
    }
    // All axes have extent 1 but the one that the values run along. A single value has that extent
    // there, too; its axis may lie beyond the rank, since nothing hinges on it.
    let shape = body.op("Shape", &[input]);
    let rank = body.op("Size", &[&shape]);
    let [zero, one, rest] = [0, 1, -1].map(|value| body.int(value));
    let axes = body.op("Range", &[&zero, &rank, &one]);
    let own = body.int(axis);
    let own = if axis < 0 { body.op("Add", &[&own, &rank]) } else { own };
    let last = body.op("Sub", &[&rank, &one]);
    let own = body.op("Min", &[&own, &last]);
    let own = body.op("Equal", &[&axes, &own]);
    let wide = body.op("Where", &[&own, &rest, &one]);
    Some(body.op("Reshape", &[value, &wide]))
}

/// `tensor` with every element `times` times in a row along `axis`.
fn repeated(tensor: &Tensor, axis: i64, times: usize) -> Option<Tensor> {
    let mut shape = tensor.shape().to_vec();
    let axis = front(axis, shape.len())?;
    let inner: usize = shape[axis + 1..].iter().product();
    let rows = tensor.bytes().chunks_exact(inner.checked_mul(tensor.dtype().size())?.max(1));
    let bytes = rows.flat_map(|row| std::iter::repeat_n(row, times)).flatten().copied().collect();
    shape[axis] = shape[axis].checked_mul(times)?;
    Tensor::from_bytes(tensor.dtype(), &shape, bytes).ok()
}

fn front(axis: i64, rank: usize) -> Option<usize> {
    usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()
}
