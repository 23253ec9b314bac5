//! What scales and shifts each channel of a convolution moves into its weights and bias:
//! `Conv` followed by `BatchNormalization`, or by `Mul`, `Div`, `Add` or `Sub` with a constant that has one
//! value, or one a channel.
//!
//! Refused: a convolution whose plain result something else reads too, weights that are no finite f32
//! constant, batch normalization in training, constants that broadcast along another axis.

use crate::graph::{Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut total = 0;
    // Each round takes one node of a chain; the last one finds none.
    loop {
        let count = rewrite_all(graph, find);
        graph.remove_dead();
        total += count;
        if count == 0 {
            return total;
        }
    }
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let candidates = match node.op.as_str() {
        "BatchNormalization" | "Div" | "Sub" => vec![(node.input(0)?, node.input(1)?)],
        "Mul" | "Add" => view.both_orders(node)?.to_vec(),
        _ => return None,
    };
    candidates.into_iter().filter(|_| node.is_onnx()).find_map(|(sums, other)| {
        let conv = view.written_by(sums, "Conv").filter(|_| view.graph.uses(sums) == 1)?;
        let weight = view.constant(conv.input(1)?)?;
        let (channels, rank) = (*weight.shape().first()?, weight.shape().len());
        let affine = if node.op == "BatchNormalization" {
            normalization(view, node, channels)?
        } else {
            arithmetic(&node.op, &per_channel(view.constant(other)?, channels, rank)?)
        };
        folded(view, node, conv, weight, &affine).map(|fused| Rewrite { index, ..fused })
    })
}

/// Factor and term of each channel.
type Affine = Vec<(f32, f32)>;

fn normalization(view: &View, node: &Node, channels: usize) -> Option<Affine> {
    let outputs = node.outputs.iter().filter(|output| !output.is_empty()).count();
    if outputs != 1 || node.int("training_mode", 0) != 0 {
        return None;
    }
    let part = |index: usize| {
        let values = view.constant(node.input(index)?)?.to_f32()?;
        (values.len() == channels).then_some(values)
    };
    let (gamma, beta, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let epsilon = node.float("epsilon", 1e-5);
    let channel = |channel: usize| {
        let factor = gamma[channel] / (variance[channel] + epsilon).sqrt();
        (factor, (-mean[channel]).mul_add(factor, beta[channel]))
    };
    Some((0..channels).map(channel).collect())
}

fn arithmetic(op: &str, values: &[f32]) -> Affine {
    let affine = |&value: &f32| match op {
        "Mul" => (value, 0.0),
        "Div" => (1.0 / value, 0.0),
        "Add" => (1.0, value),
        _ => (1.0, -value),
    };
    values.iter().map(affine).collect()
}

/// The value of each channel of what broadcasts over `[batch, channels, ..]` of that rank.
fn per_channel(tensor: &Tensor, channels: usize, rank: usize) -> Option<Vec<f32>> {
    let (values, shape) = (tensor.to_f32()?, tensor.shape());
    if shape.len() > rank {
        return None;
    }
    if values.len() == 1 {
        return Some(vec![values[0]; channels]);
    }
    let axis = (shape.len() + 1).checked_sub(rank)?;
    let only = shape.iter().enumerate().all(|(at, &extent)| extent == 1 || at == axis);
    (only && values.len() == channels).then_some(values)
}

fn folded(
    view: &View,
    node: &Node,
    conv: &Node,
    weight: &Tensor,
    affine: &Affine,
) -> Option<Rewrite> {
    let values = weight.to_f32()?;
    let row = values.len() / affine.len().max(1);
    let bias = match conv.input(2) {
        Some(bias) => view.constant(bias)?.to_f32()?,
        None => vec![0.0; affine.len()],
    };
    let scaled: Vec<f32> = values
        .chunks_exact(row.max(1))
        .zip(affine)
        .flat_map(|(row, (factor, _))| row.iter().map(move |value| value * factor))
        .collect();
    let shifted: Vec<f32> = bias
        .iter()
        .zip(affine)
        .map(|(bias, (factor, term))| bias.mul_add(*factor, *term))
        .collect();
    let finite = scaled.iter().chain(&shifted).all(|value| value.is_finite());
    if !finite || shifted.len() != affine.len() || scaled.len() != values.len() {
        return None;
    }
    let names = ["weight", "bias"].map(|part| format!("{}.{part}", node.output()));
    let mut fused = Node { name: node.name.clone(), outputs: node.outputs.clone(), ..conv.clone() };
    fused.outputs.truncate(1);
    fused.inputs.truncate(1);
    fused.inputs.extend(names.clone());
    let [weight_name, bias_name] = names;
    Some(Rewrite {
        initializers: vec![
            (weight_name, Tensor::from_f32(weight.shape(), &scaled)),
            (bias_name, Tensor::from_f32(&[shifted.len()], &shifted)),
        ],
        ..Rewrite::new(0, fused)
    })
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph, scalar};
    use super::*;

    fn constants() -> Vec<(&'static str, Tensor)> {
        let vector = |values: &[f32; 2]| Tensor::from_f32(&[2], values);
        vec![
            ("w", Tensor::from_f32(&[2, 1, 1], &[1.0, 2.0])),
            ("gamma", vector(&[2.0, 3.0])),
            ("beta", vector(&[1.0, 0.0])),
            ("mean", vector(&[0.5, 0.0])),
            ("variance", vector(&[4.0, 9.0])),
            ("three", scalar(3.0)),
            ("column", Tensor::from_f32(&[2, 1], &[5.0, 6.0])),
            ("row", Tensor::from_f32(&[1, 2], &[5.0, 6.0])),
        ]
    }

    #[test]
    fn a_chain_after_a_convolution_becomes_its_weights() {
        let norm =
            Node::new("BatchNormalization", &["c", "gamma", "beta", "mean", "variance"], &["n"])
                .with("epsilon", crate::graph::Attribute::Float(0.0));
        let nodes = vec![
            Node::new("Conv", &["x", "w"], &["c"]),
            norm,
            Node::new("Mul", &["three", "n"], &["m"]),
            Node::new("Add", &["m", "column"], &["y"]),
        ];
        let (operators, graph) = after(run, graph(nodes, constants()));
        assert_eq!(operators, ["Conv"]);
        assert_eq!(graph.initializers["y.weight"].to_f32(), Some(vec![3.0, 6.0]));
        // 3 (1 - 0.5) + 5, and 0 + 6.
        assert_eq!(graph.initializers["y.bias"].to_f32(), Some(vec![6.5, 6.0]));
    }

    #[test]
    fn what_broadcasts_elsewhere_or_is_read_twice_stays() {
        let conv = || Node::new("Conv", &["x", "w"], &["c"]);
        let along_a_row = vec![conv(), Node::new("Add", &["c", "row"], &["y"])];
        assert_eq!(after(run, graph(along_a_row, constants())).0, ["Conv", "Add"]);
        let twice = vec![
            conv(),
            Node::new("Mul", &["c", "three"], &["m"]),
            Node::new("Add", &["m", "c"], &["y"]),
        ];
        assert_eq!(after(run, graph(twice, constants())).0, ["Conv", "Mul", "Add"]);
    }
}
