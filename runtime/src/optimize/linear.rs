//! A product with a constant matrix, and the bias after it, become `dram.Linear`:
//! `y = x · weight + bias` with `x` `[.., k]`, `weight` `[k, n]`, `bias` `[n]`.
//!
//! Sources: ONNX `MatMul` (+ `Add`) and `Gemm`. Refused: weights of other rank than two or other
//! type than f32, without elements or not finite, `Gemm` with factors or a transposed `A`, a bias that is not as wide as the
//! output.

use crate::graph::{Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let biased = rewrite_all(graph, with_bias);
    graph.remove_dead();
    let plain = rewrite_all(graph, without_bias);
    biased + plain
}

fn with_bias(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if node.is("Gemm") {
        return gemm(view, index);
    }
    if !node.is("Add") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(product, bias)| {
        let matmul = view.written_by(product, "MatMul")?;
        let (x, weight) = (matmul.input(0)?, matmul.input(1)?);
        let width = matrix(view, weight)?.1;
        let bias_tensor = view.constant(bias)?;
        // A bias of a higher rank could give the result a higher rank.
        let fits = bias_tensor.dtype() == DType::F32 && bias_tensor.shape() == [width];
        fits.then(|| {
            let layer = Node::fused("Linear", &[x, weight, bias], &[node.output()]);
            Rewrite::new(index, marks::carry(matmul, layer))
        })
    })
}

fn without_bias(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let (x, weight) = node.is("MatMul").then(|| Some((node.input(0)?, node.input(1)?)))??;
    matrix(view, weight)?;
    let layer = Node::fused("Linear", &[x, weight], &[node.output()]);
    Some(Rewrite::new(index, marks::carry(node, layer)))
}

fn gemm(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let plain = node.float("alpha", 1.0) == 1.0
        && node.float("beta", 1.0) == 1.0
        && node.int("transA", 0) == 0;
    let (x, weight) = (node.input(0)?, node.input(1)?);
    let (rows, columns) = matrix(view, weight)?;
    let transposed = node.int("transB", 0) != 0;
    let width = if transposed { rows } else { columns };
    let bias_fits = match node.input(2) {
        None => true,
        Some(bias) => view.constant(bias)?.shape() == [width],
    };
    if !plain || !bias_fits {
        return None;
    }
    let mut initializers = Vec::new();
    let name = if transposed {
        let name = format!("{weight}.transposed");
        initializers.push((name.clone(), transpose(view.constant(weight)?)?));
        name
    } else {
        weight.to_owned()
    };
    let mut inputs = vec![x, &name];
    inputs.extend(node.input(2));
    let fused = marks::carry(node, Node::fused("Linear", &inputs, &[node.output()]));
    Some(Rewrite { initializers, ..Rewrite::new(index, fused) })
}

/// Extents of a constant f32 matrix that has elements, all of them finite.
fn matrix(view: &View, value: &str) -> Option<(usize, usize)> {
    let tensor = view.constant(value)?;
    let &[rows, columns] = tensor.shape() else { return None };
    let values = tensor.to_f32()?;
    let finite = values.iter().all(|value| value.is_finite());
    (!values.is_empty() && finite).then_some((rows, columns))
}

fn transpose(tensor: &Tensor) -> Option<Tensor> {
    let &[rows, columns] = tensor.shape() else { return None };
    let values = tensor.to_f32()?;
    let transposed: Vec<f32> = (0..columns)
        .flat_map(|column| (0..rows).map(move |row| row * columns + column))
        .map(|position| values[position])
        .collect();
    Some(Tensor::from_f32(&[columns, rows], &transposed))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;
    use crate::graph::Attribute;

    fn weight() -> Tensor {
        Tensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    }

    #[test]
    fn a_product_and_its_bias_are_one_layer() {
        let nodes = vec![
            Node::new("MatMul", &["x", "w"], &["product"]),
            Node::new("Add", &["b", "product"], &["y"]),
        ];
        let bias = Tensor::from_f32(&[3], &[1.0, 1.0, 1.0]);
        let (operators, graph) = after(run, graph(nodes, vec![("w", weight()), ("b", bias)]));
        assert_eq!(operators, ["Linear"]);
        assert_eq!(graph.nodes[0].inputs, ["x", "w", "b"]);
    }

    #[test]
    fn a_bias_that_would_broadcast_over_columns_is_no_bias() {
        let nodes = vec![
            Node::new("MatMul", &["x", "w"], &["product"]),
            Node::new("Add", &["product", "b"], &["y"]),
        ];
        let column = Tensor::from_f32(&[3, 1], &[1.0, 2.0, 3.0]);
        let (operators, graph) = after(run, graph(nodes, vec![("w", weight()), ("b", column)]));
        assert_eq!(operators, ["Linear", "Add"]);
        assert_eq!(graph.nodes[0].inputs, ["x", "w"]);
    }

    #[test]
    fn a_transposed_gemm_turns_its_weight() {
        let nodes = vec![Node::new("Gemm", &["x", "w"], &["y"]).with("transB", Attribute::Int(1))];
        let turned = Tensor::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (operators, graph) = after(run, graph(nodes, vec![("w", turned)]));
        assert_eq!(operators, ["Linear"]);
        assert_eq!(
            graph.initializers["w.transposed"],
            Tensor::from_f32(&[2, 3], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0])
        );
    }

    #[test]
    fn a_scaled_gemm_is_left_alone() {
        let nodes =
            vec![Node::new("Gemm", &["x", "w"], &["y"]).with("alpha", Attribute::Float(2.0))];
        assert_eq!(after(run, graph(nodes, vec![("w", weight())])).0, ["Gemm"]);
    }
}
