//! `Upsample` to the nearest place by whole factors: every value repeated along each axis.
//!
//! Refused: other factors, and linear interpolation, which later versions of ONNX define otherwise.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    let scales = match node.attributes.get("scales") {
        Some(Attribute::Floats(scales)) => scales.clone(),
        _ => body.known(node.input(1)?)?.to_f32()?,
    };
    if node.string("mode", "nearest") != "nearest" || scales.iter().any(|s| s.fract() != 0.0) {
        return None;
    }
    // Before opset 10, where `Upsample` ends, axes are attributes.
    let after: Vec<i64> = (0..scales.len() as i64).map(|axis| 2 * axis + 1).collect();
    let split = body.with("Unsqueeze", &[input], &[("axes", Attribute::Ints(after))]);
    let times: Vec<i64> = scales.iter().flat_map(|&scale| [1, scale as i64]).collect();
    let times = body.ints(&times);
    let repeated = body.op("Expand", &[&split, &times]);
    let scales: Vec<i64> = scales.iter().map(|&scale| scale as i64).collect();
    let (shape, scales) = (body.op("Shape", &[input]), body.ints(&scales));
    let shape = body.op("Mul", &[&shape, &scales]);
    let whole = body.op("Reshape", &[&repeated, &shape]);
    body.give(0, &whole);
    Some(())
}
