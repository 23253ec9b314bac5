//! `dram.Embed(ids, words, positions)` to `dram.EmbedInt8(ids, words, scales, positions)`: each word's
//! vector is rounded to int8 with a scale of its own. Positions stay f32.

use super::finite;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::tensor::Tensor;

pub(super) fn pack_int8(graph: &Graph, node: Node) -> Result<(Node, Vec<(String, Tensor)>)> {
    let name = node.input(1).unwrap_or_default().to_owned();
    let words = finite(graph, &name)?;
    let &[rows, width] = graph.initializers[&name].shape() else {
        return Err(Error::graph(
            node.place(),
            "a table of rows",
            format!("`{name}` of another rank"),
        ));
    };
    let (rounded, scales) = round_rows(&words, width);
    let (words_name, scales_name) = (format!("{name}.int8"), format!("{name}.scales"));
    let mut inputs = node.inputs.clone();
    inputs[1] = words_name.clone();
    inputs.insert(2, scales_name.clone());
    let constants = vec![
        (words_name, Tensor::from_i8(&[rows, width], &rounded)),
        (scales_name, Tensor::from_f32(&[rows], &scales)),
    ];
    Ok((Node { op: "EmbedInt8".to_owned(), inputs, ..node }, constants))
}

/// Each row of `width` values as int8 in ±127 and its scale (ONNX: QuantizeLinear, zero point 0);
/// a row of zeros has scale 1.
fn round_rows(values: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
    let rows = values.chunks_exact(width.max(1)).map(|row| {
        let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest == 0.0 { 1.0 } else { largest / 127.0 };
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
        let (rounded, scales) = round_rows(&[1.27, -0.01, 0.0, 0.0, 254.0, 127.0], 2);
        assert_eq!(rounded, [127, -1, 0, 0, 127, 64]);
        assert_eq!(scales, [0.01, 1.0, 2.0]);
    }
}
