//! What follows a linear layer moves into it: an activation, then the residual that is added.
//! `dram.Linear(x, weight, bias, residual)`, attribute `activation` = `gelu` | `relu` | `tanh`:
//! `y = activation(x · weight + bias) + residual`.
//!
//! Refused: a linear layer whose plain result something else reads too, and a residual that is
//! constant or is no output of a node or input of the graph.

use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

pub(super) fn run(graph: &mut Graph) -> usize {
    let activations = rewrite_all(graph, activation);
    graph.remove_dead();
    let residuals = rewrite_all(graph, residual);
    activations + residuals
}

fn activation(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let name = match node.op.as_str() {
        "Gelu" if node.is_fused("Gelu") => "gelu",
        "Relu" if node.is_onnx() => "relu",
        "Tanh" if node.is_onnx() => "tanh",
        _ => return None,
    };
    let linear = lone_linear(view, node.input(0)?)?;
    if linear.attributes.contains_key("activation") {
        return None;
    }
    let fused = Node { name: node.name.clone(), outputs: node.outputs.clone(), ..linear.clone() };
    Some(Rewrite::new(index, fused.with("activation", Attribute::String(name.to_owned()))))
}

fn residual(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("Add") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(sum, residual)| {
        let linear = lone_linear(view, sum)?;
        if linear.input(3).is_some() || !same_shape(view, linear, residual) {
            return None;
        }
        let mut fused =
            Node { name: node.name.clone(), outputs: node.outputs.clone(), ..linear.clone() };
        fused.inputs.resize(3, String::new());
        fused.inputs.push(residual.to_owned());
        Some(Rewrite::new(index, fused))
    })
}

fn lone_linear<'a>(view: &View<'a>, value: &str) -> Option<&'a Node> {
    let linear = view.writer(value).filter(|node| node.is_fused("Linear"))?;
    (view.graph.uses(value) == 1).then_some(linear)
}

/// Whether `residual` surely has the shape of the linear layer's output, so that the addition
/// broadcasts nothing: it is a layer norm or another linear layer of the same width.
fn same_shape(view: &View, linear: &Node, residual: &str) -> bool {
    let width = |node: &Node| {
        let weights = view.constant(node.input(1)?)?;
        weights.shape().last().copied()
    };
    let Some(writer) = view.writer(residual) else { return false };
    let shaped = writer.is("LayerNormalization") || writer.is_fused("Linear");
    shaped && width(writer).is_some() && width(writer) == width(linear)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;
    use crate::tensor::Tensor;

    fn linear(x: &str, y: &str) -> Node {
        Node::fused("Linear", &[x, "w", "b"], &[y])
    }

    fn constants() -> Vec<(&'static str, Tensor)> {
        vec![
            ("w", Tensor::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0])),
            ("b", Tensor::from_f32(&[2], &[0.0, 1.0])),
        ]
    }

    #[test]
    fn the_activation_and_then_the_residual_move_in() {
        let nodes = vec![
            linear("x", "first"),
            linear("first", "second"),
            Node::fused("Gelu", &["second"], &["bent"]),
            Node::new("Add", &["first", "bent"], &["y"]),
        ];
        let (operators, graph) = after(run, graph(nodes, constants()));
        assert_eq!(operators, ["Linear", "Linear"]);
        assert_eq!(graph.nodes[1].inputs, ["first", "w", "b", "first"]);
        assert_eq!(graph.nodes[1].string("activation", "none"), "gelu");
        assert_eq!(graph.nodes[1].output(), "y");
    }

    #[test]
    fn a_value_that_others_read_stays() {
        let nodes = vec![
            linear("x", "h"),
            Node::new("Relu", &["h"], &["bent"]),
            Node::new("Mul", &["h", "bent"], &["y"]),
        ];
        assert_eq!(after(run, graph(nodes, constants())).0, ["Linear", "Relu", "Mul"]);
    }

    #[test]
    fn a_residual_of_unknown_shape_stays_outside() {
        let nodes = vec![linear("x", "h"), Node::new("Add", &["h", "x"], &["y"])];
        assert_eq!(after(run, graph(nodes, constants())).0, ["Linear", "Add"]);
    }
}
