//! `ReduceMax` and `ReduceMin` of truth values: of the numbers 0 and 1.

use super::body::Body;
use crate::graph::Node;
use crate::tensor::DType;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    if body.known_dtype(input)? != DType::Bool {
        return None;
    }
    let mut inputs = node.inputs.clone();
    inputs[0] = body.cast(input, DType::U8);
    let reduced = body.fresh("reduced");
    body.push(Node { inputs, outputs: vec![reduced.clone()], ..node.clone() });
    let truth = body.cast(&reduced, DType::Bool);
    body.give(0, &truth);
    Some(())
}
