//! `dram.Embed(ids, words, positions)` to `dram.EmbedInt8(ids, words, scales, positions)`: each word's
//! vector is rounded to int8 with a scale of its own. Positions stay f32. Any other lookup of rows becomes
//! `dram.GatherInt8`.

use super::{Packed, finite};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::kernels::step_of_weights;
use crate::tensor::Tensor;

pub(super) fn pack_int8(graph: &Graph, node: Node) -> Result<Packed> {
    let [rows, scales] = table(graph, node.input(1).unwrap_or_default(), &node)?;
    let mut inputs = node.inputs.clone();
    inputs[1] = rows.0.clone();
    inputs.insert(2, scales.0.clone());
    Ok((Node { op: "EmbedInt8".to_owned(), inputs, ..node }, vec![rows, scales]))
}

/// ONNX `Gather(table, indices)` over rows to `dram.GatherInt8(indices, rows, scales)`.
pub(super) fn pack_gather(graph: &Graph, node: Node) -> Result<Packed> {
    let [rows, scales] = table(graph, node.input(0).unwrap_or_default(), &node)?;
    let indices = node.input(1).unwrap_or_default();
    let stored = Node::fused("GatherInt8", &[indices, &rows.0, &scales.0], &[node.output()]);
    Ok((Node { name: node.name, ..stored }, vec![rows, scales]))
}

/// The rows of a table in int8, and their scales.
fn table(graph: &Graph, name: &str, node: &Node) -> Result<[(String, Tensor); 2]> {
    let values = finite(graph, name)?;
    let &[rows, width] = graph.initializers[name].shape() else {
        let got = format!("`{name}` of another rank");
        return Err(Error::graph(node.place(), "a table of rows", got));
    };
    let (rounded, scales) = round_rows(&values, width);
    Ok([
        (format!("{name}.int8"), Tensor::from_i8(&[rows, width], &rounded)),
        (format!("{name}.scales"), Tensor::from_f32(&[rows], &scales)),
    ])
}

/// Each row of `width` values as int8 in ±127 and its scale (ONNX: QuantizeLinear, zero point 0);
/// a row of zeros has scale 1.
fn round_rows(values: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
    let rows = values.chunks_exact(width.max(1)).map(|row| {
        let scale = step_of_weights(row.iter().copied());
        let round = move |value: &f32| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        (row.iter().map(round).collect::<Vec<i8>>(), scale)
    });
    let (rounded, scales): (Vec<Vec<i8>>, Vec<f32>) = rows.unzip();
    (rounded.concat(), scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_own_scale() {
        let (rounded, scales) = round_rows(&[1.27, -0.01, 0.0, 0.0, 254.0, 126.0], 2);
        assert_eq!(rounded, [127, -1, 0, 0, 127, 63]);
        assert_eq!(scales, [0.01, 1.0, 2.0]);
    }
}
