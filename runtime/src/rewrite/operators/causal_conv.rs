//! `CausalConvWithState`: a depthwise convolution over the past and the new samples; the last samples
//! are the next past.
//!
//! Refused: weights of unknown shape.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let (input, weight) = (node.input(0)?, node.input(1)?);
    let &[channels, 1, width] = &body.known_shape(weight)?[..] else { return None };
    let kept = width.checked_sub(1)? as i64;
    let past = match node.input(3) {
        Some(past) => past.to_owned(),
        None => zeros(body, input, kept),
    };
    let all = body.with("Concat", &[&past, input], &[("axis", Attribute::Int(2))]);
    let operands = [all.as_str(), weight, node.input(2).unwrap_or_default()];
    let present = if node.input(2).is_some() { &operands[..] } else { &operands[..2] };
    let output = body.with("Conv", present, &[("group", Attribute::Int(channels as i64))]);
    let output = match node.string("activation", "none") {
        "none" => output,
        "silu" | "swish" => {
            let precise = body.as_f32(&output);
            let gate = body.op("Sigmoid", &[&precise]);
            let gated = body.op("Mul", &[&precise, &gate]);
            body.op("CastLike", &[&gated, &output])
        }
        _ => return None,
    };
    body.give(0, &output);
    let end = body.extents_of(&all, 2..3);
    let (kept, axis) = (body.ints(&[kept]), body.ints(&[2]));
    let start = body.op("Sub", &[&end, &kept]);
    let state = body.op("Slice", &[&all, &start, &end, &axis]);
    body.give(1, &state);
    Some(())
}

fn zeros(body: &mut Body, input: &str, count: i64) -> String {
    let (outer, count) = (body.extents_of(input, 0..2), body.ints(&[count]));
    let shape = body.chain(&[&outer, &count]);
    let zero = body.float(0.0);
    let zero = body.op("CastLike", &[&zero, input]);
    body.op("Expand", &[&zero, &shape])
}
