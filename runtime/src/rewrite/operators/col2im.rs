//! `Col2Im` of known shapes: a transposed convolution that puts each row of a column in its place.

use super::body::Body;
use crate::graph::Attribute;
use crate::tensor::Tensor;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    let image = body.known_ints(node.input(1)?)?;
    let block = body.known_ints(node.input(2)?)?;
    let axes = image.len();
    let or = |name: &str, count: usize, default: i64| {
        node.ints(name).map_or(vec![default; count], <[i64]>::to_vec)
    };
    let dilations = or("dilations", axes, 1);
    let strides = or("strides", axes, 1);
    let pads = or("pads", 2 * axes, 0);
    let known = [block.len(), dilations.len(), strides.len(), pads.len() / 2] == [axes; 4];
    if !known || strides.contains(&0) {
        return None;
    }
    // What the strides leave over at the end of an axis, no block reaches.
    let reach = |axis: usize| {
        let span = dilations[axis] * (block[axis] - 1) + 1;
        let free = image[axis] + pads[axis] + pads[axis + axes] - span;
        (free / strides[axis] + 1, free % strides[axis])
    };
    let (counts, leftover): (Vec<i64>, Vec<i64>) = (0..axes).map(reach).unzip();
    let rows: i64 = block.iter().product();
    let mut columns = vec![-1, rows];
    columns.extend(&counts);
    let columns = body.ints(&columns);
    let columns = body.op("Reshape", &[input, &columns]);

    let weights = identity(rows, &block)?;
    let weights = body.constant(weights);
    let weights = body.op("CastLike", &[&weights, input]);
    let attributes = [
        ("dilations", Attribute::Ints(dilations)),
        ("strides", Attribute::Ints(strides)),
        ("pads", Attribute::Ints(pads)),
        ("output_padding", Attribute::Ints(leftover)),
    ];
    let placed = body.with("ConvTranspose", &[&columns, &weights], &attributes);
    let batch = body.extents_of(input, 0..1);
    let mut shape = vec![-1];
    shape.extend(&image);
    let shape = body.ints(&shape);
    let shape = body.chain(&[&batch, &shape]);
    let placed = body.op("Reshape", &[&placed, &shape]);
    body.give(0, &placed);
    Some(())
}

/// `[rows, 1, block...]`: row `i` is one at place `i` of the block.
fn identity(rows: i64, block: &[i64]) -> Option<Tensor> {
    let rows = usize::try_from(rows).ok()?;
    let mut values = vec![0.0; rows.checked_mul(rows)?];
    values.iter_mut().step_by(rows + 1).for_each(|value| *value = 1.0);
    let shape: Vec<usize> =
        [rows, 1].into_iter().chain(block.iter().map(|&extent| extent as usize)).collect();
    Some(Tensor::from_f32(&shape, &values))
}
