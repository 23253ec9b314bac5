//! `DequantizeLinear` of 16-bit integers or in blocks: as arithmetic. tract takes the others.
//!
//! Refused: as for `QuantizeLinear`.

use super::body::Body;
use super::quantize_linear::spread;
use crate::tensor::DType;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let (input, scale) = (node.input(0)?, node.input(1)?);
    let wide = matches!(body.known_dtype(input), Some(DType::I16 | DType::U16));
    if !wide && node.int("block_size", 0) == 0 {
        return None;
    }
    let mut steps = body.as_f32(input);
    if node.input(2).is_some() {
        let zero_point = spread(body, 2)?;
        let zero_point = body.as_f32(&zero_point);
        steps = body.op("Sub", &[&steps, &zero_point]);
    }
    let step = spread(body, 1)?;
    let step = body.as_f32(&step);
    let exact = body.op("Mul", &[&steps, &step]);
    let exact = body.op("CastLike", &[&exact, scale]);
    body.give(0, &exact);
    Some(())
}
