//! `MatMulInteger` of a row that was quantized when it was known, and the scaling of its sums, become a
//! product of floats: `Cast(MatMulInteger(q, w, z, wz)) · (s · ws)` with `(q, s, z) =
//! DynamicQuantizeLinear(x)` to `MatMul(x, (w - wz) · ws)`, marked. `ConvInteger` likewise becomes `Conv`, where the
//! scale of its weights is one for all, or one for each output along the axis that outputs have.
//!
//! The same for rows that were looked up in a table of integers, `q = Gather(table, indices)`, whose scale is
//! part of the factor: the table is then marked too.
//!
//! Refused: weights, scales or zero points of weights that are no constants, and sums that something else
//! reads too.

use super::dequantize::{Steps, dequantized};
use crate::graph::{Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("Mul") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(sums, factor)| {
        if let Some(rewrite) = sums_of(view, sums).and_then(|it| looked_up(view, index, it, factor))
        {
            return Some(rewrite);
        }
        // The scales are multiplied with each other first, or one after the other.
        let (sums, scales) = match (sums_of(view, sums), view.written_by(factor, "Mul")) {
            (Some(product), Some(scales)) => (product, [scales.input(0)?, scales.input(1)?]),
            _ => view
                .both_orders(view.written_by(sums, "Mul")?)?
                .into_iter()
                .find_map(|(inner, other)| Some((sums_of(view, inner)?, [other, factor])))?,
        };
        product(view, index, sums, scales)
    })
}

/// The product with the rows of a table, where `factor` is a constant.
fn looked_up(view: &View, index: usize, sums: &Node, factor: &str) -> Option<Rewrite> {
    let gather = view.written_by(sums.input(0)?, "Gather").filter(|it| it.int("axis", 0) == 0)?;
    if !sums.is("MatMulInteger") {
        return None;
    }
    let factor = match view.written_by(factor, "Mul") {
        None => view.constant(factor)?.to_f32()?,
        Some(both) => {
            let values = |place: usize| view.constant(both.input(place)?)?.to_f32();
            let (left, right) = (values(0)?, values(1)?);
            let [single] = left[..] else { return None };
            right.iter().map(|other| single * other).collect()
        }
    };
    let steps = |scale, zero_point: Option<&str>| {
        let zero_point = match zero_point {
            None => None,
            Some(name) => Some(view.constant(name)?),
        };
        Some(Steps { scale, zero_point, axis: -1, block: 0 })
    };
    let one = Tensor::from_f32(&[], &[1.0]);
    let factor = Tensor::from_f32(&[factor.len()], &factor);
    let table = dequantized(view.constant(gather.input(0)?)?, steps(&one, sums.input(2))?)?;
    let weight = dequantized(view.constant(sums.input(1)?)?, steps(&factor, sums.input(3))?)?;
    let output = view.node(index).output();
    let [of_table, rows, of_weight] =
        ["table", "rows", "weight"].map(|part| format!("{output}.{part}"));
    let lookup = Node::new("Gather", &[&of_table, gather.input(1)?], &[&rows]);
    let product = Node::new("MatMul", &[&rows, &of_weight], &[output]);
    let nodes = [lookup, product].map(marks::quantized).to_vec();
    Some(Rewrite { index, nodes, initializers: vec![(of_table, table), (of_weight, weight)] })
}

/// The `MatMulInteger` or `ConvInteger` whose sums `value` holds as floats.
fn sums_of<'a>(view: &View<'a>, value: &str) -> Option<&'a Node> {
    let cast = view.written_by(value, "Cast")?;
    let product = view.writer(cast.input(0)?)?;
    if !product.is("MatMulInteger") && !product.is("ConvInteger") {
        return None;
    }
    let alone = view.graph.uses(value) == 1 && view.graph.uses(product.output()) == 1;
    // 1 is f32 among ONNX's element types.
    (alone && cast.int("to", 0) == 1).then_some(product)
}

fn product(view: &View, index: usize, sums: &Node, scales: [&str; 2]) -> Option<Rewrite> {
    let rounding = view.written_by(sums.input(0)?, "DynamicQuantizeLinear")?;
    let of_rounding = |place: usize| rounding.outputs.get(place).map(String::as_str);
    if of_rounding(0) != sums.input(0) || of_rounding(2) != sums.input(2) {
        return None;
    }
    let weight_scale = match of_rounding(1) {
        scale if scale == Some(scales[0]) => scales[1],
        scale if scale == Some(scales[1]) => scales[0],
        _ => return None,
    };
    let zero_point = match sums.input(3) {
        None => None,
        Some(name) => Some(view.constant(name)?),
    };
    let (scale, weight) = (view.constant(weight_scale)?, view.constant(sums.input(1)?)?);
    let conv = sums.is("ConvInteger");
    if conv && !is_along_outputs(scale, weight) {
        return None;
    }
    let steps = Steps { scale, zero_point, axis: if conv { 0 } else { -1 }, block: 0 };
    let weight = dequantized(weight, steps)?;
    let output = view.node(index).output();
    let name = format!("{output}.weight");
    let op = if conv { "Conv" } else { "MatMul" };
    let node = Node {
        attributes: sums.attributes.clone(),
        ..Node::new(op, &[rounding.input(0)?, &name], &[output])
    };
    let node = marks::quantized(node);
    // Images are rounded in one range anyway.
    let node = if conv { node } else { marks::together(node) };
    Some(Rewrite { initializers: vec![(name, weight)], ..Rewrite::new(index, node) })
}

/// Whether `scale`, multiplied with the result of a convolution by `weight`, `[outputs, inputs, ..]`, is one number
/// or one for each output.
fn is_along_outputs(scale: &Tensor, weight: &Tensor) -> bool {
    let (shape, rank) = (scale.shape(), weight.shape().len());
    // The result has as many axes as the weights; outputs are the second one.
    let outputs = (shape.len() + 1).checked_sub(rank).and_then(|axis| shape.get(axis));
    scale.len() == 1 || shape.len() <= rank && outputs == Some(&scale.len())
}
