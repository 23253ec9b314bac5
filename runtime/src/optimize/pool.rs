//! What turns token vectors into one vector becomes one operator each:
//! `dram.MeanPool(hidden, mask)` (mean of the rows that the mask keeps), `dram.FirstToken(hidden)`
//! and `dram.L2Normalize(x)` (division by the Euclidean norm of the last axis).
//!
//! Refused: a mask factor or divisor that does not compute to `1, 0, 1` and `2` for the example mask
//! `1, 0, 1`.

use crate::graph::{Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    let pooled = rewrite_all(graph, |view, index| {
        mean_pool(view, index).or_else(|| first_token(view, index))
    });
    let normalized = rewrite_all(graph, l2_normalize);
    pooled + normalized
}

/// `ReduceSum(hidden · mask, tokens) / max(ReduceSum(mask, tokens), tiny)`.
fn mean_pool(view: &View, index: usize) -> Option<Rewrite> {
    let div = view.node(index);
    let (numerator, divisor) = div.is("Div").then(|| Some((div.input(0)?, div.input(1)?)))??;
    let sum = view.written_by(numerator, "ReduceSum")?;
    if view.axes(sum)? != [1] || sum.int("keepdims", 1) != 0 {
        return None;
    }
    let product = view.written_by(sum.input(0)?, "Mul")?;
    let two = |tensor: &Tensor| tensor.to_f32().is_some_and(|v| v.iter().all(|&v| v == 2.0));
    let mask = view.mask_of(divisor, two)?;
    view.both_orders(product)?.into_iter().find_map(|(hidden, factor)| {
        (view.mask_of(factor, repeats_mask)? == mask).then(|| {
            Rewrite::new(index, Node::fused("MeanPool", &[hidden, &mask], &[div.output()]))
        })
    })
}

/// Whether a factor `[1, 3, width]` holds the example mask `1, 0, 1` in each column.
fn repeats_mask(factor: &Tensor) -> bool {
    let (&[1, 3, width], Some(values)) = (factor.shape(), factor.to_f32()) else { return false };
    width > 0
        && values.chunks(width).zip([1.0, 0.0, 1.0]).all(|(row, m)| row.iter().all(|&v| v == m))
}

/// `Gather(hidden, 0)` on the token axis.
fn first_token(view: &View, index: usize) -> Option<Rewrite> {
    let gather = view.node(index);
    let (hidden, zero) =
        gather.is("Gather").then(|| Some((gather.input(0)?, gather.input(1)?)))??;
    let scalar_zero = view.constant(zero)?;
    let first = scalar_zero.shape().is_empty() && scalar_zero.to_i64()? == [0];
    let tokens = view.written_by(hidden, "LayerNormalization").is_some();
    (first && tokens && gather.int("axis", 0) == 1)
        .then(|| Rewrite::new(index, Node::fused("FirstToken", &[hidden], &[gather.output()])))
}

/// `x / norm`, where the norm is spelled `ReduceL2` or `Sqrt(ReduceSum(x · x))`, and may be
/// guarded from below by a tiny constant and expanded.
fn l2_normalize(view: &View, index: usize) -> Option<Rewrite> {
    let div = view.node(index);
    let (x, norm) = div.is("Div").then(|| Some((div.input(0)?, div.input(1)?)))??;
    (norm_of(view, unguarded(view, norm), x)? == x)
        .then(|| Rewrite::new(index, Node::fused("L2Normalize", &[x], &[div.output()])))
}

fn unguarded<'a>(view: &View<'a>, value: &'a str) -> &'a str {
    let Some(node) = view.writer(value) else { return value };
    let tiny = |index: usize| {
        node.input(index).and_then(|bound| view.scalar(bound)).is_some_and(|bound| bound <= 1e-6)
    };
    let transparent = node.is("Expand")
        || (matches!(node.op.as_str(), "Clip" | "Max")
            && node.is_onnx()
            && tiny(1)
            && node.input(2).is_none());
    match node.input(0) {
        Some(inner) if transparent => unguarded(view, inner),
        _ => value,
    }
}

/// The value whose norm `value` is; axis 1 counts as the last one where `x` is a pooled vector.
fn norm_of<'a>(view: &View<'a>, value: &str, x: &str) -> Option<&'a str> {
    let pooled = view.writer(x).is_some_and(|n| n.is_fused("MeanPool") || n.is_fused("FirstToken"));
    let last = |node: &Node| {
        let axes = view.axes(node).unwrap_or_default();
        node.int("keepdims", 1) == 1 && (axes == [-1] || (axes == [1] && pooled))
    };
    if let Some(norm) = view.written_by(value, "ReduceL2") {
        return last(norm).then(|| norm.input(0))?;
    }
    let sqrt = view.written_by(value, "Sqrt")?;
    if let Some(sum) = view.written_by(sqrt.input(0)?, "ReduceSumSquare") {
        return last(sum).then(|| sum.input(0))?;
    }
    let sum = view.written_by(sqrt.input(0)?, "ReduceSum")?;
    let square = view.written_by(sum.input(0)?, "Mul")?;
    let x = square.input(0)?;
    (last(sum) && square.input(1) == Some(x)).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;
    use crate::graph::Attribute;

    fn mean(divisor: &str) -> Graph {
        let flat = |node: Node| node.with("keepdims", Attribute::Int(0));
        let nodes = vec![
            Node::new("Cast", &["attention_mask"], &["mask"]).with("to", Attribute::Int(1)),
            Node::new("Unsqueeze", &["mask", "two"], &["column"]),
            Node::new("Mul", &["x", "column"], &["kept"]),
            flat(Node::new("ReduceSum", &["kept", "one"], &["sum"])),
            flat(Node::new("ReduceSum", &["column", "one"], &["count"])),
            Node::new("Add", &["count", "one_more"], &["more"]),
            Node::new("Div", &["sum", divisor], &["y"]),
        ];
        let constants = vec![
            ("one", Tensor::from_i64(&[1], &[1])),
            ("two", Tensor::from_i64(&[1], &[2])),
            ("one_more", Tensor::from_f32(&[], &[1.0])),
        ];
        graph(nodes, constants)
    }

    #[test]
    fn the_mean_over_kept_tokens_is_one_operator() {
        let (operators, graph) = after(run, mean("count"));
        assert_eq!(operators, ["MeanPool"]);
        assert_eq!(graph.nodes[0].inputs, ["x", "attention_mask"]);
    }

    #[test]
    fn a_divisor_that_counts_wrongly_is_no_mean() {
        assert!(!after(run, mean("more")).0.contains(&"MeanPool".to_owned()));
    }

    #[test]
    fn a_division_by_the_norm_is_recognized_in_three_spellings() {
        let last = |node: Node| node.with("axes", Attribute::Ints(vec![-1]));
        let spellings = [
            vec![last(Node::new("ReduceL2", &["x"], &["norm"]))],
            vec![
                last(Node::new("ReduceSumSquare", &["x"], &["squares"])),
                Node::new("Sqrt", &["squares"], &["norm"]),
            ],
            vec![
                Node::new("Mul", &["x", "x"], &["square"]),
                Node::new("ReduceSum", &["square", "last"], &["squares"]),
                Node::new("Sqrt", &["squares"], &["norm"]),
            ],
        ];
        for mut nodes in spellings {
            nodes.push(Node::new("Div", &["x", "norm"], &["y"]));
            let constants = vec![("last", Tensor::from_i64(&[1], &[-1]))];
            assert_eq!(after(run, graph(nodes, constants)).0, ["L2Normalize"]);
        }
    }
}
