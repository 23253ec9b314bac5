//! `MatMul` of two vectors: the sum of their products.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let (left, right) = (body.node.input(0)?, body.node.input(1)?);
    let vectors = body.known_shape(left)?.len() == 1 && body.known_shape(right)?.len() == 1;
    if !vectors {
        return None;
    }
    let products = body.op("Mul", &[left, right]);
    let sum = body.with("ReduceSum", &[&products], &[("keepdims", Attribute::Int(0))]);
    body.give(0, &sum);
    Some(())
}
