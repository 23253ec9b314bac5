//! `Constant` nodes become initializers; `Identity` and inference-time `Dropout` disappear.
//!
//! Refused: constants of other types than tensors, numbers and lists of numbers; an `Identity`
//! that writes a graph output, whose name must stay.

use std::collections::BTreeMap;

use crate::graph::{Attribute, Graph, Node};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    let before = graph.nodes.len();
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    let mut kept = Vec::with_capacity(before);
    for mut node in std::mem::take(&mut graph.nodes) {
        node.rename_reads(&renamed);
        let written = graph.outputs.iter().any(|output| output.name == node.output());
        if let Some(value) = constant(&node).filter(|_| !written) {
            graph.initializers.insert(node.output().to_owned(), value);
        } else if passes_through(&node) && !written {
            renamed.insert(node.output().to_owned(), node.inputs[0].clone());
        } else {
            kept.push(node);
        }
    }
    graph.nodes = kept;
    before - graph.nodes.len()
}

fn constant(node: &Node) -> Option<Tensor> {
    if !node.is("Constant") {
        return None;
    }
    match node.attributes.iter().next()? {
        (_, Attribute::Tensor(tensor)) => Some(tensor.clone()),
        (name, Attribute::Int(value)) if name == "value_int" => {
            Some(Tensor::from_i64(&[], &[*value]))
        }
        (name, Attribute::Float(value)) if name == "value_float" => {
            Some(Tensor::from_f32(&[], &[*value]))
        }
        (_, Attribute::Ints(values)) => Some(Tensor::from_i64(&[values.len()], values)),
        (_, Attribute::Floats(values)) => Some(Tensor::from_f32(&[values.len()], values)),
        _ => None,
    }
}

fn passes_through(node: &Node) -> bool {
    let lone_output = node.outputs.iter().filter(|output| !output.is_empty()).count() == 1;
    // Dropout's third input switches training mode on; without it the node is the identity.
    node.is("Identity") || (node.is("Dropout") && lone_output && node.input(2).is_none())
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;

    #[test]
    fn constants_and_identities_disappear_but_outputs_keep_their_names() {
        let two = Attribute::Float(2.0);
        let nodes = vec![
            Node::new("Constant", &[], &["two"]).with("value_float", two),
            Node::new("Identity", &["x"], &["same"]),
            Node::new("Dropout", &["same"], &["kept"]),
            Node::new("Mul", &["kept", "two"], &["product"]),
            Node::new("Identity", &["product"], &["y"]),
        ];
        let (operators, graph) = after(run, graph(nodes, vec![]));
        assert_eq!(operators, ["Mul", "Identity"]);
        assert_eq!(graph.nodes[0].inputs, ["x", "two"]);
        assert_eq!(graph.initializers["two"].to_f32(), Some(vec![2.0]));
        assert_eq!(graph.outputs[0].name, "y");
    }
}
