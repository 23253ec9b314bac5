//! `Compress` by a known condition: a `Gather` of the places where it holds.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    let condition = body.known(node.input(1)?)?.bytes().iter().enumerate();
    let kept: Vec<i64> =
        condition.filter(|(_, holds)| **holds != 0).map(|(index, _)| index as i64).collect();
    let kept = body.ints(&kept);
    let (from, axis) = match node.attributes.get("axis") {
        Some(Attribute::Int(axis)) => (input.to_owned(), *axis),
        _ => {
            let flat = body.ints(&[-1]);
            (body.op("Reshape", &[input, &flat]), 0)
        }
    };
    let gathered = body.with("Gather", &[&from, &kept], &[("axis", Attribute::Int(axis))]);
    body.give(0, &gathered);
    Some(())
}
