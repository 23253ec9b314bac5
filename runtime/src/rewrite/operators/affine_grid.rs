//! `AffineGrid` whose size is known: a constant grid times the matrices `theta`.

use super::body::Body;
use crate::graph::Attribute;
use crate::tensor::Tensor;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let theta = body.node.input(0)?;
    let size = body.known_ints(body.node.input(1)?)?;
    let (&[batch, _], spatial) = size.split_first_chunk()?;
    let corners = body.node.int("align_corners", 0) == 1;
    let grid = grid(spatial, corners)?;
    let (points, width) = (grid.len() / (spatial.len() + 1), spatial.len() + 1);
    let grid = body.constant(Tensor::from_f32(&[points, width], &grid));
    let grid = body.op("CastLike", &[&grid, theta]);
    let theta = body.with("Transpose", &[theta], &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    let moved = body.op("MatMul", &[&grid, &theta]);
    let shape: Vec<i64> =
        [batch].iter().chain(spatial).copied().chain([spatial.len() as i64]).collect();
    let shape = body.ints(&shape);
    let moved = body.op("Reshape", &[&moved, &shape]);
    body.give(0, &moved);
    Some(())
}

/// Homogeneous coordinates (x, y, 1) or (x, y, z, 1) of every place of an image, whose extents are
/// given outermost first: from -1 to 1 over the centres of the outer places, or over their edges.
fn grid(spatial: &[i64], corners: bool) -> Option<Vec<f32>> {
    let coordinate = |place: i64, extent: i64| match corners {
        true if extent == 1 => 0.0,
        true => 2.0 * place as f32 / (extent - 1) as f32 - 1.0,
        false => (2 * place + 1) as f32 / extent as f32 - 1.0,
    };
    let points = spatial.iter().try_fold(1_i64, |product, &extent| product.checked_mul(extent))?;
    let mut grid = Vec::new();
    for mut point in 0..points {
        for &extent in spatial.iter().rev() {
            grid.push(coordinate(point % extent, extent));
            point /= extent;
        }
        grid.push(1.0);
    }
    Some(grid)
}
