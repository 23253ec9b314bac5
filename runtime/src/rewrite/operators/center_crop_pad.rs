//! `CenterCropPad`: padded to at least the shape asked for, then cut down to it.

use super::body::Body;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let (input, shape) = (node.input(0)?, node.input(1)?);
    let axes = node.ints("axes").map(|axes| body.ints(axes));
    let two = body.ints(&[2]);

    let extents = extents(body, input, axes.as_deref());
    let least = body.op("Max", &[&extents, shape]);
    let missing = body.op("Sub", &[&least, &extents]);
    let before = body.op("Div", &[&missing, &two]);
    let after = body.op("Sub", &[&missing, &before]);
    let pads = body.chain(&[&before, &after]);
    let padded = match &axes {
        Some(axes) => body.op("Pad", &[input, &pads, "", axes]),
        None => body.op("Pad", &[input, &pads]),
    };

    let surplus = body.op("Sub", &[&least, shape]);
    let start = body.op("Div", &[&surplus, &two]);
    let end = body.op("Add", &[&start, shape]);
    let cropped = match &axes {
        Some(axes) => body.op("Slice", &[&padded, &start, &end, axes]),
        None => body.op("Slice", &[&padded, &start, &end]),
    };
    body.give(0, &cropped);
    Some(())
}

fn extents(body: &mut Body, value: &str, axes: Option<&str>) -> String {
    let shape = body.op("Shape", &[value]);
    match axes {
        Some(axes) => body.op("Gather", &[&shape, axes]),
        None => shape,
    }
}
