//! `QLinearMatMul` whose scales are f16: the same with f32 ones.

use super::body::Body;
use crate::graph::Node;
use crate::tensor::DType;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let mut inputs = node.inputs.clone();
    for place in [1, 4, 6] {
        if body.known_dtype(node.input(place)?)? == DType::F16 {
            inputs[place] = body.as_f32(&inputs[place]);
        }
    }
    if inputs == node.inputs {
        return None;
    }
    body.push(Node { inputs, ..node.clone() });
    Some(())
}
