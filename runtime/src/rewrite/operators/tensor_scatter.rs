//! `TensorScatter`: rows of a cache replaced from each sequence's own place on, by `ScatterElements`.
//!
//! Refused: places that are left out.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let (cache, update, start) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let axis = node.int("axis", -2);
    let shape = body.op("Shape", &[update]);

    // 0, 1, 2 ... along the axis, whatever the rank.
    let (one, along) = (body.int(1), body.int(axis));
    let ones = body.op("Expand", &[&one, &shape]);
    let place = body.with("CumSum", &[&ones, &along], &[("exclusive", Attribute::Int(1))]);

    // The starts, one a sequence, with as many axes as the cache.
    let rank = body.op("Shape", &[&shape]);
    let first = body.ints(&[1]);
    let others = body.op("Sub", &[&rank, &first]);
    let others = body.op("Expand", &[&first, &others]);
    let all = body.ints(&[-1]);
    let column = body.chain(&[&all, &others]);
    let start = body.op("Reshape", &[start, &column]);
    let mut place = body.op("Add", &[&place, &start]);
    if node.string("mode", "linear") == "circular" {
        let extents = body.op("Shape", &[cache]);
        let extent = body.op("Gather", &[&extents, &along]);
        place = body.op("Mod", &[&place, &extent]);
    }
    let present =
        body.with("ScatterElements", &[cache, &place, update], &[("axis", Attribute::Int(axis))]);
    body.give(0, &present);
    Some(())
}
