//! `ConstantOfShape` without a value: zeros in f32, which tract takes for f64.

use super::body::Body;
use crate::graph::Attribute;
use crate::tensor::Tensor;

pub(super) fn write(body: &mut Body) -> Option<()> {
    if body.node.attributes.contains_key("value") {
        return None;
    }
    let zero = Attribute::Tensor(Tensor::from_f32(&[1], &[0.0]));
    let zeros = body.with("ConstantOfShape", &[body.node.input(0)?], &[("value", zero)]);
    body.give(0, &zeros);
    Some(())
}
